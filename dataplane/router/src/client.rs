//! Commands that ask a running router over its control socket.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use control::socket::{ControlClient, Request};
use control::status::{StatusReport, render};
use serde_json::Value;

use crate::cli::{PlanArgs, ReloadArgs};
use crate::plan::{self, PlanReport};

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

/// Nothing would change for any packet of the sample; something would; there is no packet to judge by.
const UNCHANGED: u8 = 0;
const CHANGES: u8 = 3;
const UNKNOWN: u8 = 4;

/// How long a plan may take: as long as the router lets it.
const PLAN_WITHIN: Duration = Duration::from_secs(125);

pub(crate) fn reload(args: &ReloadArgs) -> Result<()> {
    let request = Request::Reload {
        max_changed: args.max_changed.map(|limit| limit.to_string()),
        confirm_s: args.confirm,
        allow_traps: args.allow_traps,
    };
    let socket = &args.socket.socket;
    let value = ControlClient::connect(socket)?.with_timeout(PLAN_WITHIN).call(&request)?;
    let changed: Vec<&str> =
        value["changed"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if changed.is_empty() {
        println!("nothing changed");
    } else {
        println!("in force, configuration {}: {}", value["generation"], changed.join(", "));
    }
    if let Some(words) = value["foreseen"]["words"].as_str() {
        println!("foreseen by the sample: {words}");
    }
    if let Some(seconds) = value["confirm_within_s"].as_u64() {
        println!("going back in {seconds} s, unless: sluice confirm --socket {}", socket.display());
    }
    Ok(())
}

pub(crate) fn confirm(socket: &Path, cancel: bool) -> Result<()> {
    let value = call(socket, &Request::Confirm { cancel })?;
    let generation = &value["generation"];
    if cancel {
        println!("back to the configuration before, which is configuration {generation} now");
    } else {
        println!("configuration {generation} is confirmed");
    }
    Ok(())
}

pub(crate) fn plan(args: &PlanArgs) -> Result<ExitCode> {
    let file = args
        .file
        .canonicalize()
        .with_context(|| format!("{}: cannot be found", args.file.display()))?;
    let mut client = ControlClient::connect(&args.socket.socket)?.with_timeout(PLAN_WITHIN);
    let value = client.call(&Request::Plan { file })?;
    let report: PlanReport = serde_json::from_value(value.clone())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&value)?);
    } else {
        print!("{}", plan::render(&report));
    }
    Ok(ExitCode::from(if report.is_blind() {
        UNKNOWN
    } else if report.changed.sampled > 0 {
        CHANGES
    } else {
        UNCHANGED
    }))
}

fn call(socket: &Path, request: &Request) -> Result<Value> {
    Ok(ControlClient::connect(socket)?.call(request)?)
}
