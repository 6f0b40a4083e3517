use syn::parse_quote;

use super::*;

const LEAST: &str = "abi = \"1.0\"\nname = \"x\"\nhooks = [\"ingress\"]\n";

fn expanded(manifest: &str, mut item: ItemImpl) -> Result<String> {
    let text = LitStr::new(&format!("{LEAST}{manifest}"), Span::call_site());
    let arguments = Arguments { source: Source::Text(text), marks: false, config_capacity: None };
    expand(&arguments, &mut item).map(|tokens| tokens.to_string())
}

fn plain() -> ItemImpl {
    parse_quote!(impl Plugin for X { fn process(&mut self, batch: &mut Batch<'_>) {} })
}

#[test]
fn what_the_manifest_declares_is_exported_and_its_names_are_constants() {
    let manifest = "reasons = [\"a-b\"]\ncounters = [\"c\", { name = \"d\", len = 3 }]\n\
                    actions = [\"mark\"]\npayload = { from = \"l3\", bytes = 5 }\ntables = [\"t\"]\n";
    let text = expanded(manifest, plain()).expect("a good manifest");
    for expected in [
        "type Config = :: sluice_sdk :: NoConfig",
        "pub const A_B : :: sluice_sdk :: Reason",
        "pub const D : :: sluice_sdk :: CounterArray = :: sluice_sdk :: CounterArray :: new (1usize , 3usize)",
        "pub const T : & str = \"t\"",
        "counters = 4usize",
        "edits = true",
        "payload = 5usize",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("tick =") && !text.contains("state ="), "{text}");
}

#[test]
fn methods_and_manifest_must_agree() {
    let ticking: ItemImpl = parse_quote!(impl Plugin for X { fn tick(&mut self) {} });
    for (manifest, item, expected) in [
        ("colour = 1", plain(), "the manifest is not valid"),
        ("tick_ms = 1000", plain(), "there is no method `tick`"),
        ("state = { schema = 1, bytes_max = 8 }", plain(), "there is no method `export`"),
        ("", ticking, "nobody would call `tick`"),
        ("reasons = [\"a-b\", \"a_b\"]", plain(), "would be one constant, `reason::A_B`"),
    ] {
        let error = expanded(manifest, item).expect_err(manifest).to_string();
        assert!(error.contains(expected), "{manifest}: {error}");
    }
}

#[test]
fn arguments_are_known_or_named() {
    let refusal = |text: &str| syn::parse_str::<Arguments>(text).err().expect(text).to_string();
    assert!(refusal("").contains("say `manifest ="));
    assert!(refusal("manifest = \"a\", manifest_toml = \"b\"").contains("one manifest"));
    assert!(refusal("manifest = \"a\", colour = 1").contains("there are `manifest`"));
}
