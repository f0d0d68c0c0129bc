use runtime::{Model, include_model};

static MODEL: Model = Model::from_static(include_model!("broken.fxp"));

fn main() {
    println!("{}", MODEL.classes());
}
