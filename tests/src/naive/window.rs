//! Convolution and pooling.

use super::shape::rank4;
use crate::graph::{Element, Node, Tensor};

/// Window geometry in one dimension: size, stride, padding before, number of outputs.
#[derive(Clone, Copy)]
struct Axis {
    size: usize,
    stride: usize,
    before: usize,
    outputs: usize,
}

fn window(node: &Node, kernel: [usize; 2], input: [usize; 2]) -> Result<[Axis; 2], String> {
    if node
        .ints("dilations")
        .is_some_and(|d| d.iter().any(|&d| d != 1))
        || node.int("ceil_mode", 0) != 0
    {
        return Err("dilations and ceil_mode are not used by the exporter".into());
    }
    let strides = node.ints("strides").unwrap_or(&[1, 1]);
    let pads = node.ints("pads").unwrap_or(&[0, 0, 0, 0]);
    let axis = |i: usize| -> Result<Axis, String> {
        let (size, stride) = (kernel[i], strides[i] as usize);
        let (before, after) = match node.text("auto_pad").unwrap_or("NOTSET") {
            "NOTSET" => (pads[i] as usize, pads[i + 2] as usize),
            "VALID" => (0, 0),
            "SAME_UPPER" => {
                let total =
                    ((input[i].div_ceil(stride) - 1) * stride + size).saturating_sub(input[i]);
                (total / 2, total - total / 2)
            }
            other => return Err(format!("auto_pad {other}")),
        };
        let padded = input[i] + before + after;
        if padded < size {
            return Err(format!(
                "window {size} larger than the padded input {padded}"
            ));
        }
        Ok(Axis {
            size,
            stride,
            before,
            outputs: (padded - size) / stride + 1,
        })
    };
    Ok([axis(0)?, axis(1)?])
}

impl Axis {
    /// `(kernel position, input position)` of the taps inside the input.
    fn taps(self, output: usize, length: usize) -> impl Iterator<Item = (usize, usize)> {
        (0..self.size).filter_map(move |k| {
            let position = (output * self.stride + k).checked_sub(self.before)?;
            (position < length).then_some((k, position))
        })
    }
}

pub fn conv(node: &Node, x: &Tensor, w: &Tensor, bias: Option<&Tensor>) -> Result<Tensor, String> {
    let [n, ci, ih, iw] = rank4(x)?;
    let [co, cg, kh, kw] = rank4(w)?;
    let groups = node.int("group", 1) as usize;
    if cg * groups != ci || co % groups != 0 {
        return Err(format!(
            "weight {:?} with {groups} groups for input {:?}",
            w.shape, x.shape
        ));
    }
    let [rows, columns] = window(node, [kh, kw], [ih, iw])?;
    let mut data = Vec::with_capacity(n * co * rows.outputs * columns.outputs);
    for image in x.data.chunks(ci * ih * iw) {
        for o in 0..co {
            let first = o / (co / groups) * cg;
            for y in 0..rows.outputs {
                for z in 0..columns.outputs {
                    let mut sum = bias.map_or(0.0, |b| b.data[o]);
                    for c in 0..cg {
                        for (ky, py) in rows.taps(y, ih) {
                            for (kx, px) in columns.taps(z, iw) {
                                let weight = w.data[((o * cg + c) * kh + ky) * kw + kx];
                                sum += weight * image[((first + c) * ih + py) * iw + px];
                            }
                        }
                    }
                    data.push(sum);
                }
            }
        }
    }
    Ok(Tensor {
        shape: vec![n, co, rows.outputs, columns.outputs],
        data,
        element: Element::F32,
    })
}

pub fn pool(node: &Node, x: &Tensor, maximum: bool) -> Result<Tensor, String> {
    let [n, c, ih, iw] = rank4(x)?;
    let kernel = node.ints("kernel_shape").ok_or("kernel_shape is missing")?;
    let [rows, columns] = window(node, [kernel[0] as usize, kernel[1] as usize], [ih, iw])?;
    let whole = node.int("count_include_pad", 0) != 0;
    let mut data = Vec::with_capacity(n * c * rows.outputs * columns.outputs);
    for map in x.data.chunks(ih * iw) {
        for y in 0..rows.outputs {
            for z in 0..columns.outputs {
                let taps = || {
                    rows.taps(y, ih).flat_map(|(_, py)| {
                        columns.taps(z, iw).map(move |(_, px)| map[py * iw + px])
                    })
                };
                data.push(if maximum {
                    taps().fold(f64::NEG_INFINITY, f64::max)
                } else {
                    let count = if whole {
                        rows.size * columns.size
                    } else {
                        taps().count()
                    };
                    taps().sum::<f64>() / count as f64
                });
            }
        }
    }
    Ok(Tensor {
        shape: vec![n, c, rows.outputs, columns.outputs],
        data,
        element: x.element,
    })
}
