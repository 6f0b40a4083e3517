//! `sluice plugin test`: the plugin natively and as a module, on the same packets, to the same verdicts.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use policy::{Names, PluginFault, Rehearsal, RehearsalHost};
use sluice_sdk::testing::{Host, trial::Script};

use super::cli::{HostArgs, TestArgs};
use super::compare::{self, Difference};
use super::packets::Packets;
use super::project::{Project, cargo, run as run_command};
use super::{runner, verdicts};

pub(crate) fn run(args: &TestArgs) -> Result<ExitCode> {
    let project = Project::find(&args.path)?;
    if let Project::Rust(project) = &project
        && !args.no_unit_tests
    {
        run_command(cargo(&project.folder).args(["test", "--quiet"]))
            .context("the plugin's own tests")?;
    }
    let module = project.build()?;
    let config = config_of(&args.path, args.config.as_deref());
    let workers = usize::from(args.workers);
    let given = RehearsalHost { workers, ..given(&args.host) };
    let seed = args.host.seed;
    let mut rehearsal = rehearsal(&module, config.as_deref(), &given)?;
    let examined = rehearsal.examined().clone();
    let json = rehearsal.config().to_vec();
    let single = match &args.pcap {
        Some(pcap) => Packets::of_capture(pcap, &examined.manifest)?,
        None => Packets::generate(seed, &json, &examined.manifest, given.names.interfaces.len()),
    };
    let whence = match &args.pcap {
        Some(pcap) => pcap.display().to_string(),
        None => format!("generated, --seed {seed}"),
    };
    let packets = if workers > 1 { single.spread(workers) } else { single.clone() };
    // With `--json` the standard output is for programs.
    let say = |line: String| write_or_end(line + "\n", args.json);
    say(format!(
        "packets  {} in {} calls ({whence}); {}",
        packets.len(),
        packets.calls.len(),
        packets.skipped_words()
    ));
    if workers > 1 {
        let counts: Vec<String> = packets.of_workers().iter().map(usize::to_string).collect();
        say(format!("workers  {workers}, by flows: {} packets", counts.join(", ")));
    }
    let differs = |difference: Difference| -> Result<ExitCode> { bail!("{}", difference.0) };
    let module_run = match compare::play(&mut rehearsal, &packets, None) {
        Ok(outcome) => outcome,
        Err(difference) => return differs(difference),
    };
    say(format!("module   {}", compare::summary(&module_run, &examined)));
    for line in compare::counted(&module_run, &examined) {
        say(format!("counter  {line}"));
    }
    if args.verdicts {
        let lines = verdicts::lines(&rehearsal, &given.names, &packets, &module_run, args.json);
        write_or_end(lines.iter().fold(String::new(), |text, line| text + line + "\n"), false);
    }
    if let Err(difference) = compare::void(&rehearsal, &packets, &module_run) {
        return differs(difference);
    }
    let mut again = Rehearsal::new(&module, config.as_deref(), &given)?;
    let second = match compare::play(&mut again, &packets, None) {
        Ok(outcome) => outcome,
        Err(difference) => return differs(difference),
    };
    if let Err(difference) =
        compare::compare(&packets, &examined, ["once", "again"], [&module_run, &second], false)
    {
        return differs(difference);
    }
    say("again    the same verdicts, edits and counters".to_owned());
    if workers > 1 {
        let given = RehearsalHost { workers: 1, ..given.clone() };
        let mut rehearsal = Rehearsal::new(&module, config.as_deref(), &given)?;
        let alone = match compare::play(&mut rehearsal, &single, None) {
            Ok(outcome) => outcome,
            Err(difference) => return differs(difference),
        };
        let (several, one) = ((&packets, &module_run), (&single, &alone));
        for line in compare::against_one(&examined, several, one) {
            say(format!("one      {line}"));
        }
    }
    // Without `state` what a plugin remembers is lost at a reload, as its manifest says.
    let keeps_nothing = examined.manifest.stateful && examined.manifest.state.is_none();
    let hand_over = (!args.no_hand_over && !keeps_nothing).then(|| packets.middle());
    if let Some(at) = hand_over {
        let mut rehearsal = Rehearsal::new(&module, config.as_deref(), &given)?;
        let names = ["without", "with"];
        let handed_over = compare::play(&mut rehearsal, &packets, Some(at)).and_then(|outcome| {
            compare::compare(&packets, &examined, names, [&module_run, &outcome], true)
        });
        if let Err(Difference(text)) = handed_over {
            bail!("a reload before call {at} changes what the plugin says: {text}");
        }
        say(format!(
            "reload   before call {at} changes nothing: a new instance goes on as the old one"
        ));
    } else {
        say("skipped  a reload in the middle, after which the plugin begins anew".to_owned());
    }
    let Project::Rust(project) = &project else { return Ok(ExitCode::SUCCESS) };
    let mut host = Host::new().seed(seed);
    let HostArgs { next_hop, tag, class, interface, .. } = &args.host;
    host = next_hop.iter().fold(host, |host, name| host.next_hop(name));
    host = tag.iter().fold(host, |host, name| host.egress_tag(name));
    host = class.iter().fold(host, |host, name| host.class(name));
    host = interface.iter().fold(host, |host, name| host.interface(name));
    for (name, file) in &given.tables {
        let lines = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        host = host.table(name, &lines);
    }
    let native = runner::build(project)?;
    let script = Script {
        config: String::from_utf8(json).context("the configuration")?,
        host,
        steps: packets.steps(hand_over),
    };
    let outcome = runner::play(&native, &script)?;
    if let Some(refusal) = &outcome.refusal {
        bail!("natively the configuration is refused, which the module takes: {refusal}");
    }
    say(format!("native   {}", compare::summary(&outcome, &examined)));
    let names = ["native", "module"];
    // The native run had the reload, if there was one.
    let outcomes = [&outcome, &module_run];
    let compared = compare::compare(&packets, &examined, names, outcomes, hand_over.is_some());
    if let Err(difference) = compared {
        return differs(difference);
    }
    say("native and module agree on every verdict, edit and counter".to_owned());
    Ok(ExitCode::SUCCESS)
}

/// Writes a text to the standard output, or error. When its reader has gone (`| head`) there is nobody to tell of
/// the rest. The signal that ends other commands then would also end this one when the native runner fails.
fn write_or_end(text: String, to_error: bool) {
    let written = match to_error {
        true => std::io::stderr().write_all(text.as_bytes()),
        false => std::io::stdout().write_all(text.as_bytes()),
    };
    if written.is_err() {
        std::process::exit(1);
    }
}

/// The module, configured.
pub(crate) fn rehearsal(
    module: &Path,
    config: Option<&Path>,
    given: &RehearsalHost,
) -> Result<Rehearsal> {
    Rehearsal::new(module, config, given).map_err(|error| {
        let has_names = given.names != Names::default();
        let wants = |grant: &str| {
            policy::Examined::new(module).is_ok_and(|it| it.grants.iter().any(|it| it == grant))
        };
        if let Some(PluginFault::TableMissing(name)) = error.fault() {
            return anyhow::anyhow!("the plugin reads the table `{name}`: give it by --table {name}=FILE");
        }
        match !has_names && wants("names") {
            true => anyhow::Error::from(error).context(
                "the plugin asks for names, and none is given: --class NAME, --tag, --next-hop, --interface",
            ),
            false => error.into(),
        }
    })
}

/// What the arguments say that an operator would give the plugin.
pub(crate) fn given(args: &HostArgs) -> RehearsalHost {
    let numbers = |names: &[String]| names.iter().cloned().zip(1..).collect();
    RehearsalHost {
        tables: args.table.iter().cloned().collect(),
        names: Names {
            next_hops: numbers(&args.next_hop),
            tags: numbers(&args.tag),
            classes: numbers(&args.class),
            interfaces: numbers(&args.interface),
        },
        seed: args.seed,
        workers: 1,
    }
}

/// The configuration that is meant: the named file, or the project's `config.toml`.
pub(crate) fn config_of(path: &Path, named: Option<&Path>) -> Option<std::path::PathBuf> {
    let own = path.join("config.toml");
    named.map(Path::to_owned).or_else(|| own.exists().then_some(own))
}
