//! The instructions that the routines are written in.

/// Some f32 values in a register.
///
/// # Safety
/// Every function needs a CPU with the type's instructions; pointers are valid for `LANES` values, at any alignment.
pub(super) trait Vector: Copy {
    /// Values.
    const LANES: usize;
    /// Rows of the register tile of a matrix product: `2 * ROWS` accumulators, two columns of weights and one value fit the registers.
    const ROWS: usize;

    unsafe fn splat(value: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// `self + a * b`, rounded once where the CPU can.
    unsafe fn fma(self, a: Self, b: Self) -> Self;
    unsafe fn add(self, other: Self) -> Self;
    unsafe fn sub(self, other: Self) -> Self;
    /// The larger one.
    unsafe fn max(self, other: Self) -> Self;
    /// In each lane: `yes` where `self > other`, else `no`.
    unsafe fn select_gt(self, other: Self, yes: Self, no: Self) -> Self;
    /// Writes small whole numbers 0..=255 as bytes.
    unsafe fn store_u8(self, to: *mut u8);
    /// Whole numbers below [`TABLE`], one per lane.
    type Index: Copy;
    /// From `LANES` bytes.
    unsafe fn load_index(from: *const u8) -> Self::Index;
    /// In each lane: `table[index]`. `table` is valid for 16 values.
    unsafe fn lookup(table: *const f32, index: Self::Index) -> Self;
}

/// Values of a table that [`Vector::lookup`] reaches.
pub(super) const TABLE: usize = 8;

/// Four values in plain Rust: one register of SSE2 and of NEON.
#[derive(Clone, Copy)]
pub(super) struct Portable([f32; 4]);

impl Vector for Portable {
    const LANES: usize = 4;
    const ROWS: usize = 6;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for LANES values (trait)
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: valid for LANES values (trait)
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn fma(self, a: Self, b: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + a.0[i] * b.0[i]))
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn sub(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] - other.0[i]))
    }

    #[inline(always)]
    unsafe fn max(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| {
            if self.0[i] > other.0[i] {
                self.0[i]
            } else {
                other.0[i]
            }
        }))
    }

    #[inline(always)]
    unsafe fn select_gt(self, other: Self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| {
            if self.0[i] > other.0[i] {
                yes.0[i]
            } else {
                no.0[i]
            }
        }))
    }

    #[inline(always)]
    unsafe fn store_u8(self, to: *mut u8) {
        // SAFETY: valid for LANES values (trait)
        unsafe {
            to.cast::<[u8; 4]>()
                .write_unaligned(self.0.map(|v| v as u8))
        }
    }
    type Index = [u8; 4];

    #[inline(always)]
    unsafe fn load_index(from: *const u8) -> [u8; 4] {
        // SAFETY: valid for LANES bytes (trait)
        unsafe { from.cast::<[u8; 4]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn lookup(table: *const f32, index: [u8; 4]) -> Self {
        // SAFETY: an index is below TABLE, which is below the table's 16 values (trait)
        Self(index.map(|i| unsafe { *table.add(i as usize) }))
    }
}
