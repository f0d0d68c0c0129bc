use runtime::{Aligned, Model, include_model};

static MODEL: Model = Model::from_static(include_model!("valid.fxp"));

// One byte less than the model needs.
static ARENA: Aligned<[u8; 11]> = MODEL.arena();

fn main() {
    println!("{}", ARENA.0.len());
}
