//! No text makes the crate panic, whatever is done to a configuration.

use config::{Config, HostFacts, HostInterface, diff, draft};
use proptest::prelude::*;

/// Every example, as material.
fn examples() -> Vec<String> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
    ["router-minimal.toml", "two-nodes/a.toml", "plugin-chain.toml", "aws-one-armed.toml"]
        .iter()
        .map(|name| std::fs::read_to_string(format!("{root}/{name}")).unwrap())
        .collect()
}

/// Checks a text, and uses what comes of it.
fn use_text(text: &str) {
    match Config::parse(text, "f") {
        Ok(checked) => {
            // What is accepted is accepted by the tables.
            tables::SliceTable::build(checked.slice_blocks()).unwrap();
            assert_eq!(diff(&checked, &checked), Ok(Vec::new()));
        }
        Err(errors) => {
            assert!(!errors.is_empty());
            assert_eq!(errors.to_string().lines().count(), errors.len(), "{errors}");
        }
    }
}

/// Values of every type, good and bad, that are put in the place of others.
fn value() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "0",
        "-1",
        "65535",
        "9223372036854775807",
        "1.5",
        "true",
        "[]",
        "{}",
        "[0, 0]",
        "[{}]",
        "\"\"",
        "\"a\"",
        "\"drop\"",
        "\"0-65535\"",
        "\"70000+1\"",
        "\"192.0.2.1\"",
        "\"0.0.0.0/0\"",
        "\"::ffff:0:0/96\"",
        "\"::/0\"",
        "\"2001:db8::/64\"",
        "1979-05-27",
        "{ node = \"a\" }",
        "{ psid = 1, psid_len = 16 }",
        "{ psid = -1, psid_len = 99, psid_offset = 7 }",
        "\"\\n\"",
        "{ site = 1, owner = [], x.y.z = 2 }",
    ])
    .prop_map(str::to_owned)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_text(text in any::<String>()) {
        use_text(&text);
    }

    /// Text that looks like TOML.
    #[test]
    fn any_tables_and_keys(lines in prop::collection::vec(
        "(\\[\\[?(interface|egress|egress\\.slice|node|site|router|plugin|route)\\]?\\]|\
         (name|node|prefix|ports|sites|default|address|role|via) = [\"\\[{]?[a-z0-9./:-]{0,12}[\"\\]}]?)",
        0..24,
    )) {
        use_text(&lines.join("\n"));
    }

    /// An example with values replaced and lines lost, doubled or swapped.
    #[test]
    fn any_damage_to_an_example(
        example in any::<prop::sample::Index>(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 0u8..4, value()), 1..6),
    ) {
        let examples = examples();
        let mut lines: Vec<String> =
            example.get(&examples).lines().filter(|line| !line.starts_with('#')).map(str::to_owned)
                .collect();
        for (position, kind, value) in damage {
            let position = position.index(lines.len());
            match kind {
                0 => { lines.remove(position); }
                1 => { let line = lines[position].clone(); lines.insert(position, line); }
                2 => lines.swap(position, 0),
                _ => {
                    if let Some((key, _)) = lines[position].split_once('=') {
                        lines[position] = format!("{key}= {value}");
                    }
                }
            }
            if lines.is_empty() {
                break;
            }
        }
        use_text(&lines.join("\n"));
    }

    /// Any text in a route file.
    #[test]
    fn any_route_file(text in "([0-9./:a-f]{0,12}( via| dev| metric| blackhole| eth0|#|\n){0,3}){0,8}") {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("f.toml");
        let config = "route_files = [\"r\"]\n[[interface]]\nname = \"eth0\"\nrole = \"both\"\n";
        std::fs::write(&path, config).unwrap();
        std::fs::write(directory.path().join("r"), text).unwrap();
        if let Err(errors) = Config::load(&path) {
            prop_assert!(errors.iter().all(|error| error.line.is_some()), "{errors}");
        }
    }

    /// What `init` writes on any machine with an interface is accepted.
    #[test]
    fn any_host(
        host_name in any::<String>(),
        interfaces in prop::collection::vec(
            ("[a-z0-9@.\"\\\\é]{1,6}", 1u32..10_000, 0u32..64, any::<bool>(), "\\PC{0,8}"), 1..5),
    ) {
        let interfaces = (0..).zip(interfaces).map(|(n, (name, mtu, queues, default, driver))| {
            HostInterface {
                name: format!("{name}{n}"),
                mac: wire::MacAddress([2, 0, 0, 0, 0, n]),
                mtu,
                addresses: vec![format!("10.0.{n}.1/24").parse().unwrap()],
                queues,
                driver,
                has_default_route: default,
            }
        });
        let facts = HostFacts { host_name, interfaces: interfaces.collect() };
        let text = draft(&facts);
        let checked = Config::parse(&text, "f").map_err(|errors| {
            TestCaseError::fail(format!("{errors}\n{text}"))
        })?;
        prop_assert_eq!(checked.interfaces.len(), facts.interfaces.len());
    }
}
