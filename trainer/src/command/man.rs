//! `trainer man`: the manual pages.

use std::fs;

use clap::CommandFactory;
use clap_mangen::Man;

use super::output;
use crate::{
    cli::{Cli, ManArgs},
    error::Error,
    file,
};

/// Writes `trainer.1` and a page per command, and prints their paths.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn run(args: &ManArgs) -> Result<(), Error> {
    fs::create_dir_all(&args.dir).map_err(|error| Error::in_file(&args.dir, error))?;
    let mut command = Cli::command();
    command.build();
    let mut pages = vec![("trainer.1".to_owned(), command.clone())];
    for subcommand in command.get_subcommands().filter(|c| c.get_name() != "help") {
        let name = format!("trainer-{}", subcommand.get_name());
        pages.push((format!("{name}.1"), subcommand.clone().display_name(name)));
    }
    let mut list = String::new();
    for (name, command) in pages {
        let path = args.dir.join(name);
        let mut page = Vec::new();
        Man::new(command)
            .render(&mut page)
            .and_then(|()| file::write_atomic(&path, &page))
            .map_err(|error| Error::in_file(&path, error))?;
        list += &format!("{}\n", path.display());
    }
    output::text(&list)
}
