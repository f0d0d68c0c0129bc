//! What a forward pass did, to be undone in reverse.
//!
//! candle's own backward pass allocates a zero tensor for every gradient and adds to it, and for large tensors wakes a pool
//! of threads that go on spinning beside the kernels. The tape hands each gradient on as it is and adds only where a value
//! was read more than once. Only the network's logits are part of candle's graph.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex},
};

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Layout, Result, Shape, Tensor, TensorId, Var, bail,
};
use rayon::prelude::*;

use super::storage;

type Backward = Box<dyn Fn(&Tensor) -> Result<Vec<Option<Tensor>>> + Send + Sync>;

struct Entry {
    inputs: Vec<TensorId>,
    output: Tensor,
    /// From the output's gradient to the inputs'.
    backward: Backward,
}

/// Gradients by the tensor that they belong to.
pub type Gradients = HashMap<TensorId, Tensor>;

/// Applies operators outside candle's graph and remembers them. Its values, but for the last one, belong to it: the backward
/// pass takes them away from whoever else holds them.
pub struct Tape {
    entries: Vec<Entry>,
    record: bool,
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tape")
            .field("operators", &self.entries.len())
            .field("record", &self.record)
            .finish()
    }
}

impl Tape {
    /// With `record` false nothing is remembered, and what no later operator needs is freed at once.
    pub fn new(record: bool) -> Self {
        Self {
            entries: Vec::new(),
            record,
        }
    }

    /// Applies an operator of one argument.
    pub fn apply1<C>(&mut self, operator: C, x: &Tensor) -> Result<Tensor>
    where
        C: CustomOp1 + Send + Sync + 'static,
    {
        let y = x.apply_op1_no_bwd(&operator)?;
        if self.record {
            let (x, output) = (x.clone(), y.clone());
            self.entries.push(Entry {
                inputs: vec![x.id()],
                output: y.clone(),
                backward: Box::new(move |gradient| Ok(vec![operator.bwd(&x, &output, gradient)?])),
            });
        }
        Ok(y)
    }

    /// Applies an operator of two arguments.
    pub fn apply2<C>(&mut self, operator: C, a: &Tensor, b: &Tensor) -> Result<Tensor>
    where
        C: CustomOp2 + Send + Sync + 'static,
    {
        let y = a.apply_op2_no_bwd(b, &operator)?;
        if self.record {
            let (a, b, output) = (a.clone(), b.clone(), y.clone());
            self.entries.push(Entry {
                inputs: vec![a.id(), b.id()],
                output: y.clone(),
                backward: Box::new(move |gradient| {
                    let (a, b) = operator.bwd(&a, &b, &output, gradient)?;
                    Ok(vec![a, b])
                }),
            });
        }
        Ok(y)
    }

    /// Applies an operator of three arguments.
    pub fn apply3<C>(&mut self, operator: C, a: &Tensor, b: &Tensor, c: &Tensor) -> Result<Tensor>
    where
        C: CustomOp3 + Send + Sync + 'static,
    {
        let y = a.apply_op3_no_bwd(b, c, &operator)?;
        if self.record {
            let (a, b, c, output) = (a.clone(), b.clone(), c.clone(), y.clone());
            self.entries.push(Entry {
                inputs: vec![a.id(), b.id(), c.id()],
                output: y.clone(),
                backward: Box::new(move |gradient| {
                    let (a, b, c) = operator.bwd(&a, &b, &c, &output, gradient)?;
                    Ok(vec![a, b, c])
                }),
            });
        }
        Ok(y)
    }

    /// Gradients of everything that the tape read and did not compute, from the gradient of `output`. The values of all
    /// other outputs, and their gradients, become memory of later steps.
    fn backward(self, output: TensorId, gradient: Tensor) -> Result<Gradients> {
        let mut gradients = Gradients::from([(output, gradient)]);
        for entry in self.entries.into_iter().rev() {
            let Entry {
                inputs,
                output: y,
                backward,
            } = entry;
            if let Some(gradient) = gradients.remove(&y.id()) {
                let results = backward(&gradient)?;
                // an operator's gradients are values of their own, or its own gradient as it is
                let mut others = results.iter().flatten().chain(gradients.values());
                let passed_on = others.any(|other| other.id() == gradient.id());
                for (input, gradient) in inputs.into_iter().zip(results) {
                    if let Some(gradient) = gradient {
                        accumulate(&mut gradients, input, gradient)?;
                    }
                }
                if !passed_on && y.id() != output {
                    storage::recycle(&gradient)?;
                }
            }
            drop(backward);
            if y.id() != output {
                storage::recycle(&y)?;
            }
        }
        Ok(gradients)
    }

    /// Makes the tape's last value part of candle's graph: in candle's backward pass, the gradient of `x` goes to candle and
    /// those of all other tensors into `handed_over`. `token` is any variable of one value.
    pub fn finish(
        self,
        token: &Var,
        x: &Tensor,
        y: &Tensor,
        handed_over: &Arc<Mutex<Gradients>>,
    ) -> Result<Tensor> {
        if !self.record {
            return Ok(y.clone());
        }
        let boundary = Boundary {
            tape: Mutex::new(Some(self)),
            handed_over: handed_over.clone(),
        };
        token.apply_op3(x, y, boundary)
    }
}

/// Adds a gradient to those that a tensor already has.
pub fn accumulate(gradients: &mut Gradients, id: TensorId, gradient: Tensor) -> Result<()> {
    let sum = match gradients.remove(&id) {
        None => gradient,
        Some(before) => before.apply_op2_no_bwd(&gradient, &Sum)?,
    };
    gradients.insert(id, sum);
    Ok(())
}

/// `token, x, y -> y`.
struct Boundary {
    /// Until the backward pass.
    tape: Mutex<Option<Tape>>,
    handed_over: Arc<Mutex<Gradients>>,
}

impl CustomOp3 for Boundary {
    fn name(&self) -> &'static str {
        "network"
    }

    fn cpu_fwd(
        &self,
        _token: &CpuStorage,
        _token_layout: &Layout,
        _x: &CpuStorage,
        _x_layout: &Layout,
        y: &CpuStorage,
        y_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let y = storage::values(y, y_layout)?.to_vec();
        Ok((CpuStorage::F32(y), y_layout.shape().clone()))
    }

    fn bwd(
        &self,
        token: &Tensor,
        x: &Tensor,
        y: &Tensor,
        _result: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let tape = self.tape.lock().ok().and_then(|mut tape| tape.take());
        let Some(tape) = tape else {
            bail!("network: one backward pass for each forward pass");
        };
        let mut gradients = tape.backward(y.id(), gradient.contiguous()?)?;
        let dx = gradients.remove(&x.id()).filter(|_| x.track_op());
        let Ok(mut handed_over) = self.handed_over.lock() else {
            bail!("an earlier backward pass panicked");
        };
        for (id, gradient) in gradients {
            accumulate(&mut handed_over, id, gradient)?;
        }
        Ok((Some(token.zeros_like()?), dx, None))
    }
}

/// `a + b`, the same shape.
#[derive(Debug)]
pub struct Sum;

impl CustomOp2 for Sum {
    fn name(&self) -> &'static str {
        "sum"
    }

    fn cpu_fwd(
        &self,
        a: &CpuStorage,
        a_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut sum = storage::values(a, a_layout)?.to_vec();
        let b = storage::values(b, b_layout)?;
        if sum.len() != b.len() {
            bail!(
                "sum: the shapes differ: {:?} and {:?}",
                a_layout.dims(),
                b_layout.dims()
            );
        }
        const TASK: usize = 1 << 14;
        sum.par_chunks_mut(TASK)
            .zip(b.par_chunks(TASK))
            .for_each(|(sum, b)| super::add(sum, b));
        Ok((CpuStorage::F32(sum), a_layout.shape().clone()))
    }

    fn bwd(
        &self,
        _a: &Tensor,
        _b: &Tensor,
        _sum: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        Ok((Some(gradient.clone()), Some(gradient.clone())))
    }
}
