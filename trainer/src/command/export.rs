//! `trainer export`: the model files and the report of a trained run, written again.

use toml::Value;

use super::{
    deliver::{self, Delivered, FineTuning},
    output,
};
use crate::{
    callbacks::progress::Display,
    cli::ExportArgs,
    error::Error,
    export::winograd,
    run::{self, Lock, Run},
};

/// Runs the command. What was asked for on the command line is kept in the run's recipe.toml.
///
/// # Errors
/// A folder that is no finished run, data other than the run's, layers that cannot be transformed, a model that cannot be
/// written or does not verify.
pub fn run(args: &ExportArgs) -> Result<(), Error> {
    let display = Display::choose(false, false, args.json);
    let mut run = Run::open_with(&args.dir, sets(&args.winograd).as_slice())?;
    let _lock = Lock::take(&args.dir)?;
    let task = display.busy("reading the data");
    let data = run.load_own_data()?;
    drop(task);
    let quantized = deliver::quantize(&run, &data, FineTuning::Read, display)?;
    let choice = &run.recipe.export.winograd;
    winograd::orders(&quantized, choice).map_err(|error| Error::Usage(error.to_string()))?;
    if !args.winograd.is_empty() {
        run.recipe = run::store_recipe(&args.dir, &run.recipe, &args.dir)?;
    }
    let Delivered { verified, winograd } = deliver::write_models(&run, &quantized, &data, display)?;
    if let (Some(comparison), false) = (winograd, args.json) {
        output::text(&format!("{comparison}\n"))?;
    }
    output::result(&verified, args.json)?;
    verified.conclude()
}

/// The recipe's key for what `--winograd` says.
fn sets(winograd: &[String]) -> Option<String> {
    let value = match winograd {
        [] => return None,
        [word] if word == "auto" => Value::from("auto"),
        [word] if word == "none" => Value::Array(Vec::new()),
        names => Value::from(names.to_vec()),
    };
    Some(format!("export.winograd={value}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_as_a_key_of_the_recipe() {
        let set = |words: &[&str]| sets(&words.iter().map(|&word| word.into()).collect::<Vec<_>>());
        assert_eq!(set(&[]), None);
        assert_eq!(set(&["auto"]).unwrap(), "export.winograd=\"auto\"");
        assert_eq!(set(&["none"]).unwrap(), "export.winograd=[]");
        assert_eq!(set(&["a", "b"]).unwrap(), "export.winograd=[\"a\", \"b\"]");
    }
}
