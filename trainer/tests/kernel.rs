//! The compute routines with every instruction set of this machine against sums in f64, written down as the formula says.

use rayon::prelude::*;
use trainer::{
    architecture::{Activation, Padding, Shape, Window},
    ops::{
        geometry::Geometry,
        kernel::{
            Level, buffer,
            conv::{Forward, Plan, pad},
            gemm::{self, Packed},
            patch,
            sparse::{self, List, Row, Term},
        },
    },
};

/// Values in -1..1 that look random.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let next = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(next).collect()
}

/// Within 1e-5 of the expected value plus the largest one.
fn close(case: &str, got: &[f32], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{case}");
    let largest = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    for (i, (&a, &b)) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(a) - b).abs();
        assert!(
            error <= 1e-5 * (b.abs() + largest),
            "{case} [{i}]: got {a}, expected {b}"
        );
    }
}

fn product(a: f32, b: f32) -> f64 {
    f64::from(a) * f64::from(b)
}

fn window(size: [usize; 2], stride: [usize; 2], padding: Padding) -> Window {
    Window {
        size,
        stride,
        padding,
    }
}

/// `conv(x) + bias` of the padded sample at output (y, x), channel c.
fn convolved(plan: &Plan, padded: &[f32], kernel: &[f32], bias: &[f32], at: [usize; 3]) -> f64 {
    let [y, x, c] = at;
    let sum: f64 = (0..plan.geometry.size[0])
        .flat_map(|ky| (0..plan.run()).map(move |j| (ky, j)))
        .map(|(ky, j)| {
            let from = padded[plan.start(y, x) + ky * plan.pitch() + j];
            product(from, kernel[(ky * plan.run() + j) * plan.co + c])
        })
        .sum();
    sum + f64::from(bias[c])
}

/// Maximum and its position, the first of equals, of the pooling window at (y, x).
fn pooled(
    plan: &Plan,
    pool: &Geometry,
    value: impl Fn([usize; 2]) -> f64,
    at: [usize; 2],
) -> (f64, u8) {
    let mut best = (f64::NEG_INFINITY, 0);
    for tap in 0..pool.size[0] * pool.size[1] {
        let y = (at[0] * pool.stride[0] + tap / pool.size[1]).checked_sub(pool.before[0]);
        let x = (at[1] * pool.stride[1] + tap % pool.size[1]).checked_sub(pool.before[1]);
        let (Some(y), Some(x)) = (y, x) else { continue };
        if y < plan.geometry.output[0] && x < plan.geometry.output[1] {
            let value = value([y, x]);
            if value > best.0 {
                best = (value, tap as u8);
            }
        }
    }
    best
}

#[test]
fn convolutions() {
    use Padding::{Same, Valid};
    // input, channels, kernel, stride, padding, activation, pooling
    type Case = (
        [usize; 3],
        usize,
        [usize; 2],
        [usize; 2],
        Padding,
        Activation,
        Option<Window>,
    );
    let pool2 = || Some(window([2, 2], [2, 2], Valid));
    let cases: [Case; 6] = [
        (
            [8, 9, 1],
            20,
            [3, 3],
            [1, 1],
            Valid,
            Activation::Relu,
            pool2(),
        ),
        // by Winograd's products
        (
            [7, 8, 16],
            18,
            [3, 3],
            [1, 1],
            Valid,
            Activation::Relu,
            pool2(),
        ),
        (
            [6, 6, 16],
            33,
            [3, 3],
            [1, 1],
            Same,
            Activation::Linear,
            pool2(),
        ),
        ([6, 7, 2], 5, [2, 3], [1, 2], Same, Activation::Relu, None),
        (
            [7, 7, 3],
            9,
            [3, 3],
            [1, 1],
            Valid,
            Activation::Relu,
            Some(window([3, 2], [2, 1], Same)),
        ),
        (
            [5, 5, 4],
            16,
            [1, 1],
            [1, 1],
            Valid,
            Activation::Linear,
            Some(window([2, 2], [2, 2], Same)),
        ),
    ];
    for (i, ([h, w, c], co, size, stride, padding, activation, pool)) in
        cases.into_iter().enumerate()
    {
        let geometry = Geometry::new(Shape { h, w, c }, window(size, stride, padding));
        let [oh, ow] = geometry.output;
        let pool = pool.map(|pool| {
            Geometry::new(
                Shape {
                    h: oh,
                    w: ow,
                    c: co,
                },
                pool,
            )
        });
        let plan = Plan {
            geometry,
            co,
            activation,
            pool,
        };
        let x = numbers(geometry.input.len(), i as u32);
        let kernel = numbers(plan.k() * co, 50);
        let bias = numbers(co, 51);
        let mut padded = vec![0.0; plan.padded_len()];
        pad(&plan, &x, &mut padded);
        let activated = |v: f64| {
            if activation == Activation::Relu {
                v.max(0.0)
            } else {
                v
            }
        };
        let (mut values, mut taps) = (Vec::new(), Vec::new());
        for y in 0..plan.output()[0] {
            for x in 0..plan.output()[1] {
                for c in 0..co {
                    let value =
                        |[y, x]: [usize; 2]| convolved(&plan, &padded, &kernel, &bias, [y, x, c]);
                    let (best, tap) = match &plan.pool {
                        None => (value([y, x]), 0),
                        Some(pool) => pooled(&plan, pool, value, [y, x]),
                    };
                    values.push(activated(best));
                    taps.push(tap);
                }
            }
        }
        taps.truncate(if plan.pool.is_some() { taps.len() } else { 0 });
        for level in Level::available() {
            let mut out = vec![f32::NAN; plan.output_len()];
            let mut got = vec![99; taps.len()];
            Forward::new(level, &plan, &kernel, &bias).sample(&padded, &mut out, &mut got);
            close(&format!("case {i}, {level:?}"), &out, &values);
            assert_eq!(got, taps, "case {i}, {level:?}");
        }
    }
}

#[test]
fn matrix_products() {
    for (m, k, n) in [(1, 1, 1), (13, 7, 33), (25, 40, 16), (5, 3, 70)] {
        let (a, b, bias) = (numbers(m * k, 1), numbers(k * n, 2), numbers(n, 3));
        let transposed: Vec<f32> = (0..n * k).map(|i| b[i % k * n + i / k]).collect();
        let expected: Vec<f64> = (0..m * n)
            .map(|i| {
                let (row, column) = (i / n, i % n);
                let terms = (0..k).map(|j| product(a[row * k + j], b[j * n + column]));
                terms.sum::<f64>() + f64::from(bias[column])
            })
            .collect();
        for level in Level::available() {
            for packed in [
                Packed::new(level, &b, k, n, [n, 1]),
                Packed::new(level, &transposed, k, n, [1, k]),
            ] {
                let mut padded = bias.clone();
                padded.resize(packed.padded(), 0.0);
                let mut c = vec![f32::NAN; m * packed.padded()];
                gemm::gemm(level, m, &a, k, &packed, &padded, &mut c);
                let rows = c.chunks_exact(packed.padded());
                let got: Vec<f32> = rows.flat_map(|row| row[..n].to_vec()).collect();
                close(&format!("{m} {k} {n}, {level:?}"), &got, &expected);
            }
        }
    }
}

#[test]
fn outer_products() {
    let (rows, columns) = (29, 48);
    let (a, offsets) = (numbers(60, 1), [0, 3, 30, 30, 7]);
    let (d, before) = (
        numbers(offsets.len() * columns, 2),
        numbers(rows * columns, 3),
    );
    let expected: Vec<f64> = (0..rows * columns)
        .map(|i| {
            let (row, column) = (i / columns, i % columns);
            let terms = offsets.iter().enumerate();
            let sum: f64 = terms
                .map(|(p, offset)| product(a[offset + row], d[p * columns + column]))
                .sum();
            sum + f64::from(before[i])
        })
        .collect();
    for level in Level::available() {
        let mut c = before.clone();
        gemm::outer(level, rows, &a, &offsets, &d, columns, &mut c);
        close(&format!("{level:?}"), &c, &expected);
    }
}

#[test]
fn sparse_sums() {
    for (count, len) in [(1, 16), (3, 96), (5, 160)] {
        let row = Row {
            count,
            len,
            from_pitch: len + 3,
            to_pitch: len,
        };
        let a = numbers(count * (len + 3) + 40, 1);
        let terms: Vec<Term> = [(0, 0.5), (40, -1.0), (7, 2.0), (16, 0.25)]
            .map(|(offset, scale)| Term { offset, scale })
            .into();
        let target = |start, len, target| List { start, len, target };
        let lists = [target(0, 3, 2), target(3, 1, 0), target(1, 0, 5)];
        let before = numbers(count * len + 5, 2);
        let mut expected: Vec<f64> = before.iter().map(|&v| f64::from(v)).collect();
        for list in lists {
            for term in &terms[list.start..list.start + list.len] {
                for i in 0..count * len {
                    let from = term.offset as usize + i / len * row.from_pitch + i % len;
                    expected[list.target + i] += product(term.scale, a[from]);
                }
            }
        }
        for level in Level::available() {
            let mut c = before.clone();
            sparse::accumulate(level, row, &a, &terms, &lists, &mut c);
            close(&format!("{count} {len}, {level:?}"), &c, &expected);
        }
    }
}

#[test]
fn sums_by_lookup() {
    let (pitch, step, columns) = (24, 2, 48);
    let x = numbers(8 * pitch, 1);
    let starts = [0, 4, 2 * pitch as u32, 4 * pitch as u32 + 16];
    let places: Vec<u8> = (0..starts.len() * columns)
        .map(|i| [0, 1, 4, 5][(i * 7 + i / 5) % 4])
        .collect();
    let gradient = numbers(places.len(), 2);
    let kernel_pitch = columns + 16;
    let before = numbers(9 * kernel_pitch, 3);
    let mut expected: Vec<f64> = before.iter().map(|&v| f64::from(v)).collect();
    for (i, (&place, &gradient)) in places.iter().zip(&gradient).enumerate() {
        let start = starts[i / columns] as usize;
        for product_of in 0..9 {
            let row = place as usize / 4 + product_of / 3;
            let column = place as usize % 4 + product_of % 3;
            expected[product_of * kernel_pitch + i % columns] +=
                product(x[start + row * pitch + column * step], gradient);
        }
    }
    let mut patches = vec![f32::NAN; patch::buffer(starts.len())];
    patch::fill(&x, &starts, pitch, step, &mut patches);
    for level in Level::available() {
        let mut kernel = before.clone();
        patch::accumulate(
            level,
            &patches,
            &places,
            &gradient,
            columns,
            &mut kernel,
            kernel_pitch,
        );
        close(&format!("{level:?}"), &kernel, &expected);
    }
}

#[test]
fn chunks_are_filled_in_order() {
    for len in [1, 7, 8, 30] {
        let items = (0..usize::div_ceil(len, 4)).into_par_iter();
        let (values, lens) = buffer::chunks(len, 4, items, |i, chunk| {
            chunk.fill(0.0);
            chunk[0] = i as f32 + 1.0;
            chunk.len()
        });
        let expected = (0..len).map(|i| {
            if i % 4 == 0 {
                (i / 4) as f32 + 1.0
            } else {
                0.0
            }
        });
        assert_eq!(values, expected.collect::<Vec<f32>>());
        assert_eq!(lens.iter().sum::<usize>(), len);
    }
}
