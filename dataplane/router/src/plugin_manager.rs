//! `sluice plugin`: commands for the plugins of a running router, and for what it saved of them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use clap::Subcommand;
use control::socket::{ControlClient, Request};
use control::status::refusal_text;
use policy::{Replayed, SavedBatch, inspect_module, packet_text};
use serde_json::{Value, json};

use crate::cli::SocketArgs;

/// How long loading may take: as long as the router lets it.
const LOAD_WITHIN: Duration = Duration::from_secs(125);

/// The trap came again.
const REPRODUCED: u8 = 0;
/// It did not: it took more than the batch.
const NOT_REPRODUCED: u8 = 3;

#[derive(Debug, Subcommand)]
pub(crate) enum ManageCommand {
    /// Load a plugin from its configured file, or from another one, or a candidate beside it
    Load {
        /// Name of the plugin in the configuration
        name: String,
        /// A module to load in the place of the configured one, until that changes
        module: Option<PathBuf>,
        /// A TOML file to configure it with; what the plugin that runs has without it
        #[arg(long, value_name = "FILE", requires = "module")]
        config: Option<PathBuf>,
        /// Ask it about live packets beside the plugin that runs, apply nothing, and compare
        #[arg(long, requires = "module")]
        shadow: bool,
        /// Load it even if it traps on all packets that the router received last
        #[arg(long, conflicts_with = "shadow")]
        allow_traps: bool,
        /// The report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Bring the generation before back at once; a second time undoes it
    Rollback {
        /// Name of the plugin in the configuration
        name: String,
        /// The report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Tell what a candidate would have done otherwise
    Shadow {
        /// Name of the plugin beside which it was loaded
        name: String,
        /// The report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Put a candidate into force
    Promote {
        /// Name of the plugin beside which it was loaded
        name: String,
        /// Do so even if it trapped on all packets that the router had received last when it was loaded
        #[arg(long)]
        allow_traps: bool,
        /// The report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Ask a candidate no more
    Discard {
        /// Name of the plugin beside which it was loaded
        name: String,
        /// Its last report as JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        socket: SocketArgs,
    },
    /// Tell what a module's file holds, and what has to be granted; needs no router
    Inspect {
        /// The module
        file: PathBuf,
        /// The report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Give a batch whose call trapped to its module once more; needs no router
    ///
    /// Exit codes: 0 if it traps again, 3 if it does not, 1 if it cannot be tried.
    Replay {
        /// The file that the router saved, as its log says
        file: PathBuf,
        /// The module; the one that was saved beside the file without it
        #[arg(long, value_name = "FILE")]
        module: Option<PathBuf>,
        /// The report as JSON
        #[arg(long)]
        json: bool,
    },
}

pub(crate) fn run(command: ManageCommand) -> Result<ExitCode> {
    match command {
        ManageCommand::Load { name, module: None, allow_traps, json, socket, .. } => {
            loaded(&socket.socket, &Request::PluginReload { name, allow_traps }, json)?;
        }
        ManageCommand::Load {
            name,
            module: Some(module),
            config,
            shadow,
            allow_traps,
            json,
            socket,
        } => {
            let module = found(&module)?;
            let config = config.as_deref().map(found).transpose()?;
            let request = Request::PluginLoad { name, module, config, shadow, allow_traps };
            loaded(&socket.socket, &request, json)?;
        }
        ManageCommand::Rollback { name, json, socket } => {
            loaded(&socket.socket, &Request::PluginRollback { name }, json)?;
        }
        ManageCommand::Promote { name, allow_traps, json, socket } => {
            loaded(&socket.socket, &Request::PluginPromote { name, allow_traps }, json)?;
        }
        ManageCommand::Shadow { name, json, socket } => {
            compared(&socket.socket, &Request::PluginShadow { name }, json)?;
        }
        ManageCommand::Discard { name, json, socket } => {
            compared(&socket.socket, &Request::PluginDiscard { name }, json)?;
        }
        ManageCommand::Inspect { file, json } => inspect(&file, json)?,
        ManageCommand::Replay { file, module, json } => {
            return replay(&file, module.as_deref(), json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The path as the router will find it.
fn found(path: &Path) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("{}: cannot be found", path.display()))
}

fn ask(socket: &Path, request: &Request) -> Result<Value> {
    Ok(ControlClient::connect(socket)?.with_timeout(LOAD_WITHIN).call(request)?)
}

/// Asks for a version to be loaded, and tells which one that is.
pub(crate) fn loaded(socket: &Path, request: &Request, is_json: bool) -> Result<()> {
    let value = ask(socket, request)?;
    if is_json {
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    let name = value["name"].as_str().unwrap_or("-");
    let is_candidate = matches!(request, Request::PluginLoad { shadow: true, .. });
    let what = match (is_candidate, value["restores"].as_u64()) {
        (true, _) => "a candidate is asked beside it".to_owned(),
        (false, Some(number)) => {
            format!(
                "generation {} is live, which is generation {number} again",
                value["generation"]
            )
        }
        (false, None) => format!("generation {} is live", value["generation"]),
    };
    let (compile, instances) = (&value["compile_us"], &value["instantiate_us"]);
    println!("{name}: {what} (compiled in {compile} us, instances in {instances} us)");
    if let Some(price) = price_text(&value["price"]) {
        println!("{name}: {price}");
    }
    Ok(())
}

/// What a plugin costs, for a person; `None` if it was not priced.
fn price_text(price: &Value) -> Option<String> {
    let trapped = price["trapped"].as_str();
    let number = |key: &str| price[key].as_f64();
    if trapped.is_some() && number("cycles_per_packet").is_none() {
        return trapped.map(str::to_owned);
    }
    let mut text = format!(
        "{:.0} cycles a packet (p50 {:.0}, p99 {:.0} over {} {} packets): {:.3} cores at {:.0} packets/s",
        number("cycles_per_packet")?,
        number("cycles_per_packet_p50")?,
        number("cycles_per_packet_p99")?,
        price["packets"],
        price["traffic"].as_str().unwrap_or("-"),
        number("cores")?,
        number("packets_per_s")?,
    );
    if let Some(trapped) = trapped {
        text = format!("{text}; {trapped}");
    }
    Some(text)
}

fn compared(socket: &Path, request: &Request, is_json: bool) -> Result<()> {
    let value = ask(socket, request)?;
    if is_json {
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!(
        "{}: generation {} against {} (sha256 {})",
        value["name"].as_str().unwrap_or("-"),
        value["generation"],
        value["path"].as_str().unwrap_or("-"),
        value["sha256"].as_str().unwrap_or("-"),
    );
    println!("  {:<12}{}", "compared", value["packets"]);
    for (key, text) in [
        ("same_drops", "both drop"),
        ("new_drops", "new drops"),
        ("new_passes", "new passes"),
        ("others", "other"),
    ] {
        println!("  {text:<12}{}", value[key]);
    }
    for line in start_lines(&value["starts"]) {
        println!("  {:<12}{line}", "began");
    }
    let cost = &value["candidate"];
    println!(
        "  {:<12}p50 {}, p99 {} cycles a packet",
        "cost", cost["packet_cycles_p50"], cost["packet_cycles_p99"]
    );
    for sample in value["samples"].as_array().into_iter().flatten() {
        let text = |key: &str| sample[key].as_str().unwrap_or("-").to_owned();
        println!(
            "  {:<12}{}: {} -> {}",
            text("kind"),
            text("packet"),
            text("running"),
            text("candidate")
        );
    }
    for trap in value["traps"].as_array().into_iter().flatten() {
        println!("  {:<12}worker {}: {}", "trapped", trap["worker"], trap["reason"]);
    }
    Ok(())
}

/// How a candidate began: a line for all workers in which it did so alike.
fn start_lines(starts: &Value) -> Vec<String> {
    let mut lines: Vec<(String, Vec<String>)> = Vec::new();
    for start in starts.as_array().into_iter().flatten() {
        let text = start["text"].as_str().unwrap_or("-");
        let worker = start["worker"].to_string();
        match lines.iter_mut().find(|(known, _)| known == text) {
            Some((_, workers)) => workers.push(worker),
            None => lines.push((text.to_owned(), vec![worker])),
        }
    }
    let line = |(text, workers): (String, Vec<String>)| {
        let word = if workers.len() == 1 { "worker" } else { "workers" };
        format!("{text} ({word} {})", workers.join(", "))
    };
    lines.into_iter().map(line).collect()
}

/// Runs `sluice plugin list`.
pub(crate) fn list(socket: &Path, is_json: bool) -> Result<()> {
    let value = ask(socket, &Request::PluginList)?;
    if is_json {
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    for plugin in value.as_array().into_iter().flatten() {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let hash = |value: &Value| text(value).chars().take(12).collect::<String>();
        let total = &plugin["total"];
        println!(
            "{} ({}) at {}: {}",
            text(&plugin["name"]),
            text(&plugin["module"]),
            text(&plugin["hook"]),
            text(&plugin["state"])
        );
        let held = match (plugin["restores"].as_u64(), plugin["is_held"] == true) {
            (Some(number), true) => format!(", generation {number} again; its file is put aside"),
            (_, true) => ", by command; its file is put aside".to_owned(),
            _ => String::new(),
        };
        println!("  live      {} {}{held}", plugin["generation"], hash(&plugin["sha256"]));
        if let Some(before) = plugin["before"].as_object() {
            let stands_by = if before["stands_by"] == true { ", stands by" } else { "" };
            println!("  before    {} {}{stands_by}", before["generation"], hash(&before["sha256"]));
        }
        if plugin["has_candidate"] == true {
            println!("  candidate sluice plugin shadow {}", text(&plugin["name"]));
            for line in start_lines(&plugin["candidate_starts"]) {
                println!("  began     {line}");
            }
        }
        println!(
            "  packets   {} ({} on, {} dropped, {} by default, {} unjudged)",
            total["packets"],
            total["continued"],
            total["drops"],
            total["default_drops"],
            total["unjudged"]
        );
        println!(
            "  cycles    p50 {}, p99 {} a packet; p50 {}, p99 {} a call",
            total["packet_cycles_p50"],
            total["packet_cycles_p99"],
            total["call_cycles_p50"],
            total["call_cycles_p99"]
        );
        if let Some(price) = price_text(&plugin["price"]) {
            println!("  price     {price}");
        }
        println!("  traps     {}, bad verdicts {}", total["traps"], total["bad_verdicts"]);
        if let Some(refusal) = refusal_text(plugin) {
            println!("  refused   {refusal}");
        }
        let counters = total["counters"].as_object().into_iter().flatten();
        let counted: Vec<String> = counters
            .filter(|(_, value)| value.as_u64() != Some(0))
            .map(|(name, value)| format!("{name} {value}"))
            .collect();
        if !counted.is_empty() {
            println!("  counters  {}", counted.join(", "));
        }
    }
    Ok(())
}

fn inspect(file: &Path, is_json: bool) -> Result<()> {
    ensure!(
        !file.is_dir(),
        "{}: a folder; `sluice plugin build` makes a module of it and says where that is",
        file.display()
    );
    let bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
    let report = inspect_module(&bytes).with_context(|| format!("{}", file.display()))?;
    if is_json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    let line = |name: &str, text: &str| println!("{name:<10}{text}");
    let all = |names: &[String]| match names {
        [] => "none".to_owned(),
        names => names.join(", "),
    };
    line("name", &report.name);
    line("abi", &report.abi);
    line("sha256", &report.sha256);
    line("size", &format!("{} bytes, {} of them code", report.bytes, report.code_bytes));
    let (least, most) = (report.memory_bytes, report.memory_max_bytes);
    line("memory", &format!("{least} bytes at first, up to {most}"));
    line("hooks", &all(&report.hooks));
    line("grants", &all(&report.grants));
    line("tables", &all(&report.tables));
    line("reasons", &all(&report.reasons));
    line("counters", &report.counters.to_string());
    line("imports", &all(&report.imports));
    line("exports", &all(&report.exports));
    Ok(())
}

fn replay(file: &Path, module: Option<&Path>, is_json: bool) -> Result<ExitCode> {
    let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let saved = SavedBatch::parse(&text).map_err(|error| anyhow!("{}: {error}", file.display()))?;
    let beside = file.with_file_name(format!("{}.wasm", saved.sha256));
    let module = module.unwrap_or(&beside);
    let bytes = fs::read(module)
        .with_context(|| format!("{}: name the module by --module", module.display()))?;
    let replayed = policy::replay(&saved, &bytes)?;
    let code = if replayed.trapped.is_some() { REPRODUCED } else { NOT_REPRODUCED };
    if is_json {
        println!("{}", serde_json::to_string_pretty(&replay_json(&saved, &replayed))?);
    } else {
        print_replay(&saved, &replayed);
    }
    Ok(ExitCode::from(code))
}

fn packet(saved: &SavedBatch, position: usize) -> String {
    let packet = saved.packets.get(position).and_then(|packet| packet.descriptor().ok());
    packet.map_or_else(|| "-".to_owned(), |descriptor| packet_text(&descriptor))
}

fn replay_json(saved: &SavedBatch, replayed: &Replayed) -> Value {
    let alone =
        replayed.alone.iter().map(|at| json!({ "position": at, "packet": packet(saved, *at) }));
    json!({
        "plugin": saved.plugin,
        "generation": saved.generation,
        "packets": saved.packets.len(),
        "saved_reason": saved.reason,
        "reproduced": replayed.trapped.is_some(),
        "reason": replayed.trapped.as_ref().map(|trapped| &trapped.reason),
        "functions": replayed.trapped.as_ref().map(|trapped| &trapped.functions),
        "alone": alone.collect::<Vec<_>>(),
        "first": replayed.first,
    })
}

fn print_replay(saved: &SavedBatch, replayed: &Replayed) {
    println!(
        "{} generation {}, worker {}, {} packets: {}",
        saved.plugin,
        saved.generation,
        saved.worker,
        saved.packets.len(),
        saved.reason
    );
    let Some(trapped) = &replayed.trapped else {
        println!(
            "not reproduced: it took more than this batch, such as what the instance kept in its memory"
        );
        return;
    };
    println!("reproduced: {}", trapped.reason);
    for function in &trapped.functions {
        println!("  in {function}");
    }
    for position in &replayed.alone {
        println!("packet {position} alone: {}", packet(saved, *position));
    }
    if let Some(first) = replayed.first {
        println!("no packet alone; the first {first} together:");
        for position in 0..first {
            println!("packet {position}: {}", packet(saved, position));
        }
    }
}
