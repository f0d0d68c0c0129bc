//! Which images are for training, for validation and for the test.

use std::path::Path;

use super::{Dataset, DatasetError, Labelled, Loaded};
use crate::{
    random::{Purpose, permutation},
    recipe::{Data, SplitMode},
};

/// Test part of data that has no test files of its own, if the recipe does not say.
const TEST_FRACTION: f64 = 0.2;

/// Applies `data.split`, `data.validation` and `data.limit`.
pub(super) fn split(loaded: Loaded, data: &Data, path: &Path) -> Result<Dataset, DatasetError> {
    let error = |problem| DatasetError::Split {
        path: path.into(),
        problem,
    };
    let Loaded {
        mut train,
        test,
        class_names,
    } = loaded;
    let official = test.as_ref().map(Labelled::len);
    let test = match (test, data.split.mode) {
        (Some(test), SplitMode::Official) => test,
        (test, _) => {
            if let Some(test) = test {
                train.images.pixels.extend_from_slice(&test.images.pixels);
                train.labels.extend_from_slice(&test.labels);
            }
            let n = train.len();
            if n == 0 {
                return Err(error("there are no images".into()));
            }
            let wanted = match (data.split.test, official) {
                (Some(count), _) if count >= 1.0 => count as usize,
                (Some(fraction), _) => (n as f64 * fraction).round() as usize,
                (None, Some(official)) => official,
                (None, None) => (n as f64 * TEST_FRACTION).round() as usize,
            };
            if wanted == 0 || wanted >= n {
                return Err(error(format!(
                    "{wanted} of {n} images for the test leaves an empty part"
                )));
            }
            let order = permutation(n, data.split.seed, Purpose::Split, 0);
            let (kept, held) = order.split_at(n - wanted);
            let test = train.select(held);
            train = train.select(kept);
            test
        }
    };
    let mut validation = None;
    if data.validation > 0.0 {
        let n = train.len();
        let wanted = (n as f64 * f64::from(data.validation)).round() as usize;
        if wanted == 0 || wanted >= n {
            return Err(error(format!(
                "data.validation = {} of {n} training images leaves an empty part",
                data.validation
            )));
        }
        let order = permutation(n, data.split.seed, Purpose::Validation, 0);
        let (kept, held) = order.split_at(n - wanted);
        validation = Some(train.select(held));
        train = train.select(kept);
    }
    if let Some(limit) = data.limit
        && limit < train.len()
    {
        let order = permutation(train.len(), data.split.seed, Purpose::Limit, 0);
        train = train.select(&order[..limit]);
    }
    for (part, images) in [("training", &train), ("test", &test)] {
        if images.is_empty() {
            return Err(error(format!("the {part} part has no images")));
        }
    }
    Ok(Dataset {
        train,
        validation,
        test,
        class_names,
    })
}
