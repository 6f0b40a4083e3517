//! Commands that say what they are, and errors that say what a command answered.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// The command line as one would type it, without the environment and the program's folder.
#[must_use]
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    std::iter::once(program.file_name().unwrap_or(command.get_program()))
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Says what is run, runs it with this process's output, and returns whether it succeeded.
///
/// # Errors
/// When the program cannot be started.
pub fn status(command: &mut Command) -> Result<bool> {
    let line = line(command);
    eprintln!("$ {line}");
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("`{line}` cannot be started"))?;
    Ok(status.success())
}

/// Says what is run, and runs it with this process's output.
///
/// # Errors
/// When the program cannot be started or fails.
pub fn run(command: &mut Command) -> Result<()> {
    if !status(command)? {
        bail!("`{}` failed", line(command));
    }
    Ok(())
}

/// Runs it silently and returns its standard output.
///
/// # Errors
/// When the program cannot be started or fails: with what it wrote to its standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("`{line}` cannot be started"))?;
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        let words = format!("{}\n{}", stderr.trim(), stdout.trim());
        bail!("`{line}` failed ({}): {}", output.status, words.trim());
    }
    Ok(stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_carries_the_command_and_its_words() {
        let error = output(Command::new("sh").args(["-c", "echo no such luck >&2; exit 3"]))
            .expect_err("it fails")
            .to_string();
        assert!(error.contains("sh -c") && error.contains("no such luck"), "{error}");
        let error = output(&mut Command::new("/nonexistent/program")).expect_err("no program");
        assert_eq!(error.to_string(), "`program` cannot be started");
        assert_eq!(output(Command::new("echo").arg("yes")).expect("it succeeds"), "yes\n");
    }
}
