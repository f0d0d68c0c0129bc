//! `defmt-log ELF < LOG`: prints a log that `ELF` wrote, one line per frame: level and message.

use std::{
    env,
    error::Error,
    fs,
    io::{self, Read},
};

use defmt_decoder::{DecodeError, Table};

fn main() -> Result<(), Box<dyn Error>> {
    let elf = env::args_os().nth(1).ok_or("usage: defmt-log ELF < LOG")?;
    let table = Table::parse(&fs::read(elf)?)?.ok_or("the program does not log with defmt")?;
    let mut log = Vec::new();
    io::stdin().read_to_end(&mut log)?;
    let mut decoder = table.new_stream_decoder();
    decoder.received(&log);
    loop {
        match decoder.decode() {
            Ok(frame) => {
                let level = frame.level().map_or("println", |level| level.as_str());
                println!("{} {}", level.to_uppercase(), frame.display_message());
            }
            Err(DecodeError::UnexpectedEof) => return Ok(()),
            Err(DecodeError::Malformed) => return Err("malformed log frame".into()),
        }
    }
}
