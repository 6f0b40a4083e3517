use super::*;

const LEAST: &str = "abi = \"1.0\"\nname = \"x\"\nhooks = [\"ingress\"]\n";

fn refusal(text: &str) -> String {
    Manifest::parse(text.as_bytes()).expect_err(text).to_string()
}

#[test]
fn all_keys_of_the_contract_are_taken() {
    // The example of ABI.md, which is thereby a manifest.
    let contract = include_str!("../../ABI.md");
    let start = contract.find("```toml\n").expect("an example") + 8;
    let end = start + contract[start..].find("```").expect("its end");
    let manifest = Manifest::parse(&contract.as_bytes()[start..end]).expect("the example is good");
    assert_eq!(manifest.counter_names().len(), 1 + 1024 + 1);
    assert_eq!(manifest.counters[2].name(), "flows");
    let flows = NamedCounter { name: "flows".to_owned(), is_gauge: true };
    assert_eq!(manifest.named_counters().last(), Some(&flows));
    assert!(manifest.takes_edits());
    assert_eq!(manifest.state.expect("state").takes, [1]);
}

#[test]
fn what_a_manifest_leaves_out_has_the_defaults_of_the_contract() {
    let manifest = Manifest::parse(LEAST.as_bytes()).expect("the least manifest");
    assert_eq!(manifest.memory_max_bytes, 16 << 20);
    assert_eq!(manifest.granularity, Granularity::Packet);
    assert_eq!(manifest.on_trap, OnTrap::Open);
    assert_eq!(manifest.default, DefaultVerdict::Continue);
    assert!(!manifest.takes_edits() && manifest.counter_names().is_empty());
}

#[test]
fn counters_are_named_with_their_index() {
    let text = format!("{LEAST}counters = [\"seen\", {{ name = \"hits\", len = 2 }}, \"last\"]\n");
    let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
    assert_eq!(manifest.counter_names(), ["seen", "hits[0]", "hits[1]", "last"]);
    let text = format!("{LEAST}counters = [{{ name = \"flows\", gauge = true }}, \"last\"]\n");
    let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
    assert_eq!(manifest.gauges(), [true, false]);
    assert_eq!(manifest.counter_names(), ["flows", "last"]);
    // One in an array is named as one of several.
    let text = format!("{LEAST}counters = [{{ name = \"a\", len = 1, gauge = true }}]\n");
    let manifest = Manifest::parse(text.as_bytes()).expect("a manifest");
    assert_eq!(
        (manifest.counter_names(), manifest.gauges()),
        (vec!["a[0]".to_owned()], vec![true])
    );
}

#[test]
fn whatever_is_wrong_is_named() {
    for (text, expected) in [
        (format!("{LEAST}colour = 1"), "colour"),
        (LEAST.replace("1.0", "2.0"), "ABI 2.0, this is 1.0"),
        (LEAST.replace("1.0", "1.1"), "ABI 1.1, this is 1.0"),
        (LEAST.replace("1.0", "one"), "`abi`"),
        (LEAST.replace("ingress", "middle"), "`middle` is none of ingress, forward, egress"),
        (LEAST.replace("[\"ingress\"]", "[]"), "`hooks` names none"),
        (LEAST.replace("\"x\"", "\"x y\""), "`name`"),
        (format!("{LEAST}imports = [\"files\"]"), "`files` is none of log, random"),
        (format!("{LEAST}actions = [\"tag\", \"tag\"]"), "`tag` stands there twice"),
        (format!("{LEAST}payload = {{ from = \"l4\", bytes = 2049 }}"), "`payload.bytes`: 2049"),
        (format!("{LEAST}tick_ms = 9"), "`tick_ms`: 9"),
        (format!("{LEAST}state = {{ schema = 1, bytes_max = 0 }}"), "`state.bytes_max`: 0"),
        (format!("{LEAST}reasons = [\"default\"]"), "reserved"),
        (
            format!("{LEAST}reasons = [\"a\", \"a\"]"),
            "`reasons`: `a` is reserved or stands there twice",
        ),
        (format!("{LEAST}counters = [{{ name = \"a\", len = 4097 }}]"), "4096"),
        (format!("{LEAST}counters = [{{ name = \"a\", size = 1 }}]"), "counters"),
        (format!("{LEAST}counters = [{{ name = \"a\", guage = true }}]"), "counters"),
        (format!("{LEAST}hooks = ["), "line 4"),
    ] {
        let refusal = refusal(&text);
        assert!(refusal.contains(expected), "{text}\n{refusal}");
    }
    assert!(Manifest::parse(&[0xff]).is_err());
}
