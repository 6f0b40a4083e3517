//! `sluice plugin build`: the module, and what loading would say of it.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use policy::Examined;

use super::cli::BuildArgs;
use super::project::Project;
use super::test::config_of;

pub(crate) fn run(args: &BuildArgs) -> Result<ExitCode> {
    let module = Project::find(&args.path)?.build()?;
    let examined = Examined::new(&module)?;
    let config = config_of(&args.path, None).and_then(|path| path.canonicalize().ok());
    print(&module, &examined, config.as_deref());
    Ok(ExitCode::SUCCESS)
}

fn print(module: &Path, examined: &Examined, config: Option<&Path>) {
    let manifest = &examined.manifest;
    println!("module   {}", module.display());
    println!("size     {} bytes", examined.bytes);
    println!("sha256   {}", examined.sha256);
    println!("plugin   {}, for {}", manifest.name, manifest.hooks.join(", "));
    println!("\n[[plugin]]");
    println!("name = \"{}\"", manifest.name);
    println!("path = \"{}\"", module.display());
    println!("hook = \"{}\"", manifest.hooks.first().map_or("ingress", String::as_str));
    if !examined.grants.is_empty() {
        let quoted: Vec<_> = examined.grants.iter().map(|grant| format!("\"{grant}\"")).collect();
        println!("grants = [{}]", quoted.join(", "));
    }
    if !examined.manifest.tables.is_empty() {
        let tables: Vec<_> =
            examined.manifest.tables.iter().map(|table| format!("{table} = \"FILE\"")).collect();
        println!("# tables = {{ {} }}", tables.join(", "));
    }
    if let Some(config) = config {
        println!("config_file = \"{}\"", config.display());
    }
    println!("# sha256 = \"{}\"   # holds the router to this build", examined.sha256);
}
