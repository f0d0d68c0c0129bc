//! Every intermediate tensor, bit for bit: what `trainer verify --layers` compares.

use serde::Serialize;

use crate::{
    compare::{VerifyError, real},
    graph::{Graph, OpRecord},
    host::Host,
    tract::{Mode, Tract, Value},
};

/// Images per tract run; intermediate tensors are large.
const BATCH: usize = 16;

/// The first value that differs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Difference {
    /// Layer of the recipe.
    pub layer: String,
    /// Operator of model.fxp.
    pub op: usize,
    /// Position of the image.
    pub image: usize,
    /// Row, column and channel.
    pub position: [usize; 3],
    /// What the ONNX engine computed.
    pub onnx: f64,
    /// What the runtime computed, times its power of two.
    pub fixed: f64,
    /// The runtime's stored value.
    pub stored: i32,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            layer,
            op,
            image,
            position: [y, x, c],
            onnx,
            fixed,
            stored,
        } = self;
        write!(
            f,
            "image {image}, layer `{layer}` (operator {op}), row {y} column {x} channel {c}: ONNX {onnx}, runtime {fixed} ({stored} steps)"
        )
    }
}

/// Result of a comparison of all intermediate tensors.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayersReport {
    /// Images compared.
    pub images: usize,
    /// Values compared.
    pub values: usize,
    /// Values that differ.
    pub differing: usize,
    /// The first one, in the order of the operators within the first image that has one.
    pub first: Option<Difference>,
}

/// Compares the output of every operator of `isobit.ops` with the runtime's, for every image.
///
/// # Errors
/// A file that is refused, a record without a value in the graph, or shapes that differ.
pub fn compare_layers(
    onnx: &[u8],
    fxp: &[u8],
    images: &[&[u8]],
    mode: Mode,
    progress: &mut dyn FnMut(usize),
) -> Result<LayersReport, VerifyError> {
    let graph = Graph::parse(onnx)?;
    let mut records = graph.ops()?;
    records.sort_by_key(|r| r.op);
    let names: Vec<String> = records.iter().map(|r| r.value.clone()).collect();
    let host = Host::new(fxp)?;
    let mut report = LayersReport {
        images: images.len(),
        values: 0,
        differing: 0,
        first: None,
    };
    let mut plan: Option<(usize, Tract)> = None;
    for (b, batch) in images.chunks(BATCH).enumerate() {
        let tract = match plan.take().filter(|(n, _)| *n == batch.len()) {
            Some((_, tract)) => tract,
            None => Tract::load(onnx, graph.image, &names, batch.len(), mode)?,
        };
        let values = tract.run(batch)?;
        plan = Some((batch.len(), tract));
        for (i, image) in batch.iter().enumerate() {
            compare_image(
                &mut report,
                &records,
                &values,
                &host.trace(image)?,
                [b * BATCH + i, i],
            )?;
        }
        progress(b * BATCH + batch.len());
    }
    Ok(report)
}

/// Compares one image's values. `[image, row]`: its position in the whole set and in the batch of `values`.
///
/// # Errors
/// Records that do not fit the operators, or shapes that differ.
pub fn compare_image(
    report: &mut LayersReport,
    records: &[OpRecord],
    values: &[Value],
    traced: &[Vec<i32>],
    [image, row]: [usize; 2],
) -> Result<(), VerifyError> {
    if records.len() != traced.len() || records.iter().enumerate().any(|(i, r)| r.op != i) {
        let message = format!(
            "isobit.ops has {} records, model.fxp {} operators",
            records.len(),
            traced.len()
        );
        return Err(VerifyError::Pair(message));
    }
    for ((record, value), stored) in records.iter().zip(values).zip(traced) {
        // [n, c, h, w] or [n, c].
        let (channels, map) = match *value.shape.as_slice() {
            [_, c, h, w] => (c, [h, w]),
            [_, c] => (c, [1, 1]),
            _ => {
                return Err(VerifyError::Pair(format!(
                    "value `{}` has the shape {:?}",
                    record.value, value.shape
                )));
            }
        };
        let area = map[0] * map[1];
        if stored.len() != channels * area {
            let message = format!(
                "value `{}`: {:?} in ONNX, {} values in model.fxp",
                record.value,
                value.shape,
                stored.len()
            );
            return Err(VerifyError::Pair(message));
        }
        let onnx = &value.data[row * stored.len()..][..stored.len()];
        for (at, &q) in stored.iter().enumerate() {
            let (pixel, c) = (at / channels, at % channels);
            let exponent = record.exponent.at(c).ok_or_else(|| {
                VerifyError::Pair(format!(
                    "no exponent for channel {c} of `{}` in isobit.ops",
                    record.value
                ))
            })?;
            let fixed = real(q, exponent);
            let onnx = f64::from(onnx[c * area + pixel]);
            report.values += 1;
            if onnx != fixed {
                report.differing += 1;
                report.first.get_or_insert_with(|| Difference {
                    layer: record.layer.clone(),
                    op: record.op,
                    image,
                    position: [pixel / map[1], pixel % map[1], c],
                    onnx,
                    fixed,
                    stored: q,
                });
            }
        }
    }
    Ok(())
}
