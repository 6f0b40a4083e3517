//! What the host has to do with a plugin's [`Manifest`], which `sluice-manifest` reads and checks: how it
//! names hooks, what of it the layout is held to, and its faults as a [`PluginFault`].

use frame::HookPoint;
use sluice_manifest::ManifestError;

use crate::{LayoutNeeds, Manifest, PluginFault, foreign_text::printable_lines};

/// The hook as manifests and configurations write it.
pub(crate) const fn hook_name(point: HookPoint) -> &'static str {
    match point {
        HookPoint::Ingress => "ingress",
        HookPoint::Forward => "forward",
        HookPoint::Egress => "egress",
    }
}

impl LayoutNeeds {
    /// What the layout of a plugin with this manifest has to have.
    pub(crate) fn of(manifest: &Manifest) -> Self {
        Self {
            counters: manifest.counter_names().len(),
            edits: manifest.takes_edits(),
            payload_bytes: manifest.payload.map_or(0, |window| window.bytes),
            state_bytes: manifest.state.as_ref().map_or(0, |state| state.bytes_max),
        }
    }
}

impl From<ManifestError> for PluginFault {
    fn from(error: ManifestError) -> Self {
        match error {
            ManifestError::Invalid(text) => Self::Manifest(printable_lines(text.as_bytes())),
            ManifestError::AbiVersion { found, spoken } => Self::AbiVersion { found, spoken },
        }
    }
}

#[cfg(test)]
mod tests {
    use sluice_manifest::{CAPABILITIES, HOOKS};

    use super::*;
    use crate::imports;

    const LEAST: &str = "abi = \"1.0\"\nname = \"x\"\nhooks = [\"ingress\"]\n";

    fn refusal(text: &str) -> String {
        let error = Manifest::parse(text.as_bytes()).expect_err("this manifest is broken");
        PluginFault::from(error).to_string()
    }

    #[test]
    fn manifests_may_name_the_hooks_and_capabilities_that_there_are() {
        assert_eq!(HookPoint::ALL.map(hook_name), HOOKS);
        assert_eq!(imports::capabilities(), CAPABILITIES);
    }

    #[test]
    fn a_layout_needs_what_the_manifest_declares() {
        let needs = |more: &str| {
            let text = format!("{LEAST}{more}\n");
            LayoutNeeds::of(&Manifest::parse(text.as_bytes()).expect("a manifest"))
        };
        assert_eq!(needs(""), LayoutNeeds::default());
        let declared = "counters = [\"a\", { name = \"b\", len = 2 }]\n\
             payload = { from = \"l4\", bytes = 50 }\nstate = { schema = 1, bytes_max = 64 }";
        let expected =
            LayoutNeeds { counters: 3, edits: false, payload_bytes: 50, state_bytes: 64 };
        assert_eq!(needs(declared), expected);
        // A mirrored packet takes a flag, but no edit.
        assert!(!needs("actions = [\"transmit\", \"mirror\"]").edits);
        assert!(needs("actions = [\"mirror\", \"dscp\"]").edits);
    }

    #[test]
    fn what_is_wrong_is_named_and_called_a_fault_of_the_manifest() {
        let text = refusal(&format!("{LEAST}colour = 1"));
        assert!(text.starts_with("the manifest is not valid: "), "{text}");
        assert!(text.contains("line 4") && text.contains("`colour`"), "{text}");
        let text = refusal(&format!("{LEAST}imports = [\"files\"]"));
        let known = "none of log, random, names, meter, table, quota";
        assert_eq!(text, format!("the manifest is not valid: `imports`: `files` is {known}"));
        let versions = "the plugin is made for ABI 2.0, this host speaks 1.0";
        assert_eq!(refusal(&LEAST.replace("1.0", "2.0")), versions);
    }
}
