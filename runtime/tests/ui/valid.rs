use runtime::{Aligned, Model, include_model};

static MODEL: Model = Model::from_static(include_model!("valid.fxp"));

fn main() {
    let mut arena = [0; MODEL.arena_len()];
    let fitted: Aligned<[u8; 12]> = MODEL.arena();
    assert_eq!(fitted.0, arena);
    let logits = MODEL.run(&[5, 6, 7], &mut arena).unwrap();
    assert!(logits.accumulators().eq([48, 2]));
    assert_eq!(MODEL.file().as_ptr() as usize % 4, 0);
}
