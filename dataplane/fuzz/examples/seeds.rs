//! Writes the first inputs of every target: `cargo run --release -p fuzz --example seeds -- FOLDER`.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let Some(folder) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("which folder?");
        return ExitCode::FAILURE;
    };
    match fuzz::seeds::write(&folder) {
        Ok(count) => println!("{count} inputs below {}", folder.display()),
        Err(error) => {
            eprintln!("{}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
