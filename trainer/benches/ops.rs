//! Every operator of a training step by itself, forward and backward, at the sizes of the base network (batch 64) on two
//! threads, in samples per second: `cargo bench -p trainer --bench ops`.

use std::{collections::BTreeMap, sync::Mutex};

use candle_core::{CustomOp1, CustomOp3, Device, Tensor};
use divan::{Bencher, counter::ItemsCount};
use rayon::{ThreadPool, ThreadPoolBuilder};
use trainer::{
    architecture::{Activation, OutputActivation, Padding, Regularizer, Shape, Window},
    loss,
    ops::{
        activation, batch_norm, conv, dense, dropout,
        fake_quantize::{self, Grid},
        geometry::Geometry,
        grouped,
        kernel::{Level, conv::Plan},
        penalty, pool,
        tape::Sum,
    },
    optimizer::Optimizer,
    random::{Purpose, generator},
    recipe::{Clip, LossRecipe, OptimizerRecipe},
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH: usize = 64;

fn main() {
    divan::main();
}

/// Values in -1..1, about half of them negative.
fn tensor(shape: &[usize]) -> Tensor {
    let len = shape.iter().product();
    let value = |i: usize| (i.wrapping_mul(2_654_435_761) % 1999) as f32 / 1000.0 - 0.9995;
    let values: Vec<f32> = (0..len).map(value).collect();
    Tensor::from_vec(values, shape, &Device::Cpu).expect("a tensor")
}

fn threads() -> ThreadPool {
    let builder = ThreadPoolBuilder::new().num_threads(2);
    builder.build().expect("threads")
}

fn measure(bencher: Bencher, work: impl Fn() + Sync) {
    let pool = threads();
    bencher
        .counter(ItemsCount::new(BATCH))
        .bench_local(|| pool.install(&work));
}

fn unary<C: CustomOp1 + Sync>(
    bencher: Bencher,
    backward: bool,
    x: &[usize],
    new: impl Fn() -> C + Sync,
) {
    let x = tensor(x);
    let operator = new();
    let y = x.apply_op1_no_bwd(&operator).expect("a value");
    let gradient = tensor(y.dims());
    measure(bencher, || {
        if backward {
            divan::black_box(operator.bwd(&x, &y, &gradient).expect("a gradient"));
        } else {
            divan::black_box(x.apply_op1_no_bwd(&new()).expect("a value"));
        }
    });
}

fn ternary<C: CustomOp3 + Sync>(
    bencher: Bencher,
    backward: bool,
    [x, a, b]: [&[usize]; 3],
    new: impl Fn() -> C + Sync,
) {
    let (x, a, b) = (tensor(x), tensor(a), tensor(b));
    let operator = new();
    let y = x.apply_op3_no_bwd(&a, &b, &operator).expect("a value");
    let gradient = tensor(y.dims());
    measure(bencher, || {
        if backward {
            divan::black_box(operator.bwd(&x, &a, &b, &y, &gradient).expect("gradients"));
        } else {
            divan::black_box(x.apply_op3_no_bwd(&a, &b, &new()).expect("a value"));
        }
    });
}

const POOL: Window = Window {
    size: [2, 2],
    stride: [2, 2],
    padding: Padding::Valid,
};

fn window3() -> Window {
    Window {
        size: [3, 3],
        stride: [1, 1],
        ..POOL
    }
}

/// A 3x3 convolution with relu and perhaps 2x2 max pooling.
fn convolution(bencher: Bencher, backward: bool, side: usize, ci: usize, co: usize, pooled: bool) {
    let input = Shape {
        h: side,
        w: side,
        c: ci,
    };
    let geometry = Geometry::new(input, window3());
    let [h, w] = geometry.output;
    let plan = Plan {
        geometry,
        co,
        activation: Activation::Relu,
        pool: pooled.then(|| Geometry::new(Shape { h, w, c: co }, POOL)),
    };
    let shapes: [&[usize]; 3] = [&[BATCH, side, side, ci], &[3, 3, ci, co], &[co]];
    ternary(bencher, backward, shapes, || {
        conv::operator(Level::detect(), plan.clone(), ci > 1, true)
    });
}

const DIRECTIONS: [&str; 2] = ["forward", "backward"];

fn backward(direction: &str) -> bool {
    direction == "backward"
}

#[divan::bench(args = DIRECTIONS)]
fn conv1_pool1(bencher: Bencher, direction: &str) {
    convolution(bencher, backward(direction), 28, 1, 32, true);
}

#[divan::bench(args = DIRECTIONS)]
fn conv2_pool2(bencher: Bencher, direction: &str) {
    convolution(bencher, backward(direction), 13, 32, 64, true);
}

#[divan::bench(args = DIRECTIONS)]
fn conv3(bencher: Bencher, direction: &str) {
    convolution(bencher, backward(direction), 5, 64, 64, false);
}

#[divan::bench(args = DIRECTIONS)]
fn depthwise_conv(bencher: Bencher, direction: &str) {
    let input = Shape {
        h: 13,
        w: 13,
        c: 32,
    };
    let shapes: [&[usize]; 3] = [&[BATCH, 13, 13, 32], &[3, 3, 1, 32], &[32]];
    ternary(bencher, backward(direction), shapes, || {
        let geometry = Geometry::new(input, window3());
        grouped::operator(Level::detect(), geometry, 32, 32, true, true)
    });
}

#[divan::bench(args = DIRECTIONS)]
fn dense_70(bencher: Bencher, direction: &str) {
    let shapes: [&[usize]; 3] = [&[BATCH, 576], &[576, 70], &[70]];
    ternary(bencher, backward(direction), shapes, || {
        dense::operator(Level::detect(), Activation::Relu, true, true)
    });
}

#[divan::bench(args = DIRECTIONS)]
fn batch_normalization(bencher: Bencher, direction: &str) {
    let shapes: [&[usize]; 3] = [&[BATCH, 13, 13, 32], &[32], &[32]];
    ternary(bencher, backward(direction), shapes, || {
        batch_norm::operator(0.001).0
    });
}

#[divan::bench(args = DIRECTIONS)]
fn max_pool(bencher: Bencher, direction: &str) {
    let input = Shape {
        h: 26,
        w: 26,
        c: 32,
    };
    unary(bencher, backward(direction), &[BATCH, 26, 26, 32], || {
        pool::max_operator(Geometry::new(input, POOL))
    });
}

#[divan::bench(args = DIRECTIONS)]
fn avg_pool(bencher: Bencher, direction: &str) {
    let input = Shape {
        h: 26,
        w: 26,
        c: 32,
    };
    unary(bencher, backward(direction), &[BATCH, 26, 26, 32], || {
        pool::avg_operator(Geometry::new(input, POOL))
    });
}

#[divan::bench(args = DIRECTIONS)]
fn relu(bencher: Bencher, direction: &str) {
    unary(bencher, backward(direction), &[BATCH, 13, 13, 32], || {
        activation::operator(Activation::Relu)
    });
}

#[divan::bench(args = DIRECTIONS)]
fn sigmoid(bencher: Bencher, direction: &str) {
    unary(bencher, backward(direction), &[BATCH, 13, 13, 32], || {
        activation::operator(Activation::Sigmoid)
    });
}

#[divan::bench(args = DIRECTIONS)]
fn dropout_with_mask(bencher: Bencher, direction: &str) {
    unary(bencher, backward(direction), &[BATCH, 576], || {
        let mut random = generator(1, Purpose::Dropout, 0, 0);
        dropout::operator(dropout::mask(BATCH * 576, 0.5, &mut random))
    });
}

#[divan::bench(args = DIRECTIONS)]
fn fake_quantization(bencher: Bencher, direction: &str) {
    unary(bencher, backward(direction), &[BATCH, 13, 13, 32], || {
        fake_quantize::operator(Grid::new(-7, (-128, 127)))
    });
}

#[divan::bench(args = DIRECTIONS)]
fn l2_penalty(bencher: Bencher, direction: &str) {
    let regularizer = Regularizer { l1: 0.0, l2: 1e-3 };
    unary(bencher, backward(direction), &[576, 70], || {
        penalty::operator(regularizer)
    });
}

#[divan::bench]
fn residual_add(bencher: Bencher) {
    let x = tensor(&[BATCH, 13, 13, 32]);
    measure(bencher, || {
        divan::black_box(x.apply_op2_no_bwd(&x, &Sum).expect("a sum"));
    });
}

#[divan::bench]
fn cross_entropy(bencher: Bencher) {
    let logits = tensor(&[BATCH, 10]);
    let labels: Vec<u32> = (0..BATCH as u32).map(|i| i % 10).collect();
    let recipe = LossRecipe::CategoricalCrossentropy {
        label_smoothing: 0.0,
    };
    measure(bencher, || {
        let one_hot = loss::one_hot(&labels, 10, &Device::Cpu).expect("targets");
        let output = OutputActivation::Softmax;
        divan::black_box(loss::loss(&recipe, output, &logits, &one_hot).expect("a loss"));
    });
}

/// All weights of the base network.
#[divan::bench]
fn rmsprop_96844(bencher: Bencher) {
    let named = |values| BTreeMap::from([("w".to_owned(), values)]);
    let gradients = named(tensor(&[96_844]));
    let weights = Mutex::new((
        Optimizer::new(OptimizerRecipe::default(), Clip::default()),
        named(tensor(&[96_844])),
    ));
    measure(bencher, || {
        let mut guard = weights.lock().expect("no panic before");
        let (optimizer, weights) = &mut *guard;
        optimizer.step(weights, &gradients, 0.001).expect("a step");
    });
}
