//! Operators that only move values, and sums over trailing axes.

use crate::graph::{Node, Tensor};

pub fn rank4(x: &Tensor) -> Result<[usize; 4], String> {
    x.shape
        .as_slice()
        .try_into()
        .map_err(|_| format!("shape {:?}, expected [n, c, h, w]", x.shape))
}

pub fn broadcast(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<Tensor, String> {
    let rank = a.shape.len().max(b.shape.len());
    let padded = |t: &Tensor| [vec![1; rank - t.shape.len()], t.shape.clone()].concat();
    let (sa, sb) = (padded(a), padded(b));
    if sa
        .iter()
        .zip(&sb)
        .any(|(x, y)| x != y && *x != 1 && *y != 1)
    {
        return Err(format!(
            "shapes {:?} and {:?} do not broadcast",
            a.shape, b.shape
        ));
    }
    let shape: Vec<usize> = sa.iter().zip(&sb).map(|(&x, &y)| x.max(y)).collect();
    let index = |from: &[usize], i: usize| {
        let (mut rest, mut step, mut at) = (i, 1, 0);
        for axis in (0..rank).rev() {
            at += if from[axis] == 1 {
                0
            } else {
                rest % shape[axis] * step
            };
            step *= from[axis];
            rest /= shape[axis];
        }
        at
    };
    let data = (0..shape.iter().product())
        .map(|i| f(a.data[index(&sa, i)], b.data[index(&sb, i)]))
        .collect();
    Ok(Tensor {
        shape,
        data,
        element: a.element,
    })
}

pub fn reshape(x: &Tensor, target: &Tensor) -> Result<Tensor, String> {
    let mut shape = Vec::with_capacity(target.data.len());
    let mut open = None;
    for (i, &d) in target.data.iter().enumerate() {
        shape.push(match d {
            0.0 => *x.shape.get(i).ok_or("0 beyond the input's rank")?,
            -1.0 => {
                open = Some(i);
                1
            }
            d => d as usize,
        });
    }
    let known: usize = shape.iter().product();
    if let Some(i) = open {
        shape[i] = x.data.len() / known.max(1);
    }
    if shape.iter().product::<usize>() != x.data.len() {
        return Err(format!("{:?} does not fit {:?}", x.shape, target.data));
    }
    Ok(Tensor { shape, ..x.clone() })
}

/// Squeeze and ReduceMean over trailing axes (with `keepdims` for the latter).
pub fn reduce_tail(node: &Node, x: &Tensor, axes: Option<&Tensor>) -> Result<Tensor, String> {
    let rank = x.shape.len();
    let axes: Vec<i64> = match (axes, node.ints("axes")) {
        (Some(t), _) => t.data.iter().map(|&v| v as i64).collect(),
        (None, Some(list)) => list.to_vec(),
        (None, None) => return Err("axes are missing".into()),
    };
    let mut axes: Vec<usize> = axes
        .iter()
        .map(|&a| (if a < 0 { a + rank as i64 } else { a }) as usize)
        .collect();
    axes.sort_unstable();
    if axes
        .iter()
        .rev()
        .enumerate()
        .any(|(i, &a)| a + i + 1 != rank)
    {
        return Err(format!(
            "axes {axes:?} are not the last ones of rank {rank}"
        ));
    }
    let mut shape = x.shape[..rank - axes.len()].to_vec();
    let inner: usize = x.shape[rank - axes.len()..].iter().product();
    if node.op == "ReduceMean" && node.int("keepdims", 1) != 0 {
        shape.resize(rank, 1);
    }
    let data = x
        .data
        .chunks(inner.max(1))
        .map(|c| c.iter().sum::<f64>() / inner as f64)
        .collect();
    Ok(Tensor {
        shape,
        data,
        element: x.element,
    })
}

pub fn transpose(node: &Node, x: &Tensor) -> Result<Tensor, String> {
    let rank = x.shape.len();
    let order: Vec<usize> = match node.ints("perm") {
        Some(perm) => perm.iter().map(|&p| p as usize).collect(),
        None => (0..rank).rev().collect(),
    };
    if order.len() != rank || order.iter().any(|&p| p >= rank) {
        return Err(format!("perm {order:?} for rank {rank}"));
    }
    let steps: Vec<usize> = (0..rank)
        .map(|a| x.shape[a + 1..].iter().product())
        .collect();
    let shape: Vec<usize> = order.iter().map(|&p| x.shape[p]).collect();
    let data = (0..x.data.len()).map(|i| {
        let (mut rest, mut at) = (i, 0);
        for axis in (0..rank).rev() {
            at += rest % shape[axis] * steps[order[axis]];
            rest /= shape[axis];
        }
        x.data[at]
    });
    Ok(Tensor {
        data: data.collect(),
        shape,
        element: x.element,
    })
}
