//! Commands that ask a running router over its control socket.

use std::path::Path;

use anyhow::Result;
use control::socket::{ControlClient, Request};
use control::status::{StatusReport, render};
use serde_json::Value;

/// The report of the router behind `socket`.
pub(crate) fn report(socket: &Path) -> Result<StatusReport> {
    Ok(serde_json::from_value(call(socket, &Request::Status)?)?)
}

pub(crate) fn status(socket: &Path, json: bool) -> Result<()> {
    let value = call(socket, &Request::Status)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print!("{}", render(&serde_json::from_value(value)?));
    }
    Ok(())
}

pub(crate) fn reload(socket: &Path) -> Result<()> {
    let value = call(socket, &Request::Reload)?;
    let changed: Vec<&str> =
        value["changed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if changed.is_empty() {
        println!("nothing changed");
    } else {
        println!("in force, configuration {}: {}", value["generation"], changed.join(", "));
    }
    Ok(())
}

pub(crate) fn plugins(socket: &Path) -> Result<()> {
    let value = call(socket, &Request::PluginList)?;
    println!("{}", serde_json::to_string_pretty(&value)?);
    Ok(())
}

pub(crate) fn reload_plugin(socket: &Path, name: String) -> Result<()> {
    let value = call(socket, &Request::PluginReload { name: name.clone() })?;
    println!(
        "{name}: generation {} is live (compiled in {} us, instances in {} us)",
        value["generation"], value["compile_us"], value["instantiate_us"]
    );
    Ok(())
}

fn call(socket: &Path, request: &Request) -> Result<Value> {
    Ok(ControlClient::connect(socket)?.call(request)?)
}
