//! What an update rule computes with: one f32 (the CPU's fused loop) or a whole candle tensor (CUDA).

use candle_core::Tensor;

/// Elementwise arithmetic. Scalars are hyper-parameters of the step.
pub trait Value: Sized + Clone {
    /// Never for f32.
    type Error;
    /// `self + other`.
    fn add(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `self - other`.
    fn sub(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `self * other`.
    fn mul(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `self / other`.
    fn div(&self, other: &Self) -> Result<Self, Self::Error>;
    /// The larger of both.
    fn maximum(&self, other: &Self) -> Result<Self, Self::Error>;
    /// `self * factor + offset`.
    fn affine(&self, factor: f32, offset: f32) -> Result<Self, Self::Error>;
    /// Square root.
    fn sqrt(&self) -> Result<Self, Self::Error>;
    /// Absolute value.
    fn abs(&self) -> Result<Self, Self::Error>;
    /// -1, 0 or 1.
    fn sign(&self) -> Result<Self, Self::Error>;
}

impl Value for f32 {
    type Error = std::convert::Infallible;

    fn add(&self, other: &Self) -> Result<Self, Self::Error> {
        Ok(self + other)
    }
    fn sub(&self, other: &Self) -> Result<Self, Self::Error> {
        Ok(self - other)
    }
    fn mul(&self, other: &Self) -> Result<Self, Self::Error> {
        Ok(self * other)
    }
    fn div(&self, other: &Self) -> Result<Self, Self::Error> {
        Ok(self / other)
    }
    fn maximum(&self, other: &Self) -> Result<Self, Self::Error> {
        Ok(self.max(*other))
    }
    fn affine(&self, factor: f32, offset: f32) -> Result<Self, Self::Error> {
        Ok(self * factor + offset)
    }
    fn sqrt(&self) -> Result<Self, Self::Error> {
        Ok(f32::sqrt(*self))
    }
    fn abs(&self) -> Result<Self, Self::Error> {
        Ok(f32::abs(*self))
    }
    fn sign(&self) -> Result<Self, Self::Error> {
        Ok(if *self == 0.0 { 0.0 } else { self.signum() })
    }
}

impl Value for Tensor {
    type Error = candle_core::Error;

    fn add(&self, other: &Self) -> Result<Self, Self::Error> {
        self + other
    }
    fn sub(&self, other: &Self) -> Result<Self, Self::Error> {
        self - other
    }
    fn mul(&self, other: &Self) -> Result<Self, Self::Error> {
        self * other
    }
    fn div(&self, other: &Self) -> Result<Self, Self::Error> {
        self / other
    }
    fn maximum(&self, other: &Self) -> Result<Self, Self::Error> {
        Tensor::maximum(self, other)
    }
    fn affine(&self, factor: f32, offset: f32) -> Result<Self, Self::Error> {
        Tensor::affine(self, f64::from(factor), f64::from(offset))
    }
    fn sqrt(&self) -> Result<Self, Self::Error> {
        Tensor::sqrt(self)
    }
    fn abs(&self) -> Result<Self, Self::Error> {
        Tensor::abs(self)
    }
    fn sign(&self) -> Result<Self, Self::Error> {
        Tensor::sign(self)
    }
}
