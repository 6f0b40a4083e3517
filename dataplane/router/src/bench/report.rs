//! `sluice bench report`: one page and one Markdown file from the documents of a folder.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use load::report;

use crate::bench::document;

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// The folder: every *.json in it is a document of a measurement; report.html and report.md are
    /// written into it
    dir: PathBuf,
}

pub(crate) fn run(args: &ReportArgs) -> Result<()> {
    let sources = report::read_dir(&args.dir)?;
    let report = report::render(&sources)?;
    for (name, text) in [("report.html", report.html), ("report.md", report.markdown)] {
        let path = args.dir.join(name);
        document::write_whole(&path, &text)?;
        println!("{}", path.display());
    }
    Ok(())
}
