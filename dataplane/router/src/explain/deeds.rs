//! What a plugin did with a packet, in words.

use frame::{Act, Deed};
use serde_json::{Map, Value, json};
use sluice_abi::{edit, tcp_option};
use tables::{Actions, Detour};

/// Options of a SYN by the bits that plugins know them by.
const OPTIONS: [(u8, &str); 5] = [
    (tcp_option::WINDOW_SCALE, "window scale"),
    (tcp_option::SACK_PERMITTED, "SACK permitted"),
    (tcp_option::TIMESTAMPS, "timestamps"),
    (tcp_option::MULTIPATH, "multipath"),
    (tcp_option::FAST_OPEN, "Fast Open"),
];

/// A deed in words that follow the plugin's name, none for a drop that is told elsewhere, and for programs.
pub(crate) fn deed_words(deed: &Deed, actions: &Actions) -> (Vec<String>, Map<String, Value>) {
    let (mut words, mut details) = (Vec::new(), Map::new());
    let named = |detour: Option<&Detour>, number: u16| {
        detour.map_or_else(|| format!("number {number}"), |detour| detour.name.to_string())
    };
    match deed.act {
        Act::Bad(why) => {
            details.insert("bad_verdict".to_owned(), json!(why));
            words.push(format!("gives a bad verdict ({why}), so that its default counts"));
        }
        Act::Transmit(number) => {
            let name = named(actions.next_hop(number), number);
            words.push(format!("sends it to next hop {name}"));
            details.insert("transmit".to_owned(), json!(name));
        }
        Act::Edit | Act::Drop => {}
    }
    let set = &deed.edit;
    let mut note = |flag: u8, key: &str, value: Value, text: String| {
        if deed.flags & flag != 0 {
            words.push(text);
            details.insert(key.to_owned(), value);
        }
    };
    note(edit::MARK, "mark", json!(set.mark), format!("sets mark {}", set.mark));
    let tag = named(actions.tag(set.tag), set.tag);
    note(edit::TAG, "tag", json!(tag), format!("sets egress tag {tag}"));
    let class = actions.class(set.class);
    let name =
        class.map_or_else(|| format!("number {}", set.class), |class| class.name.to_string());
    let dscp = class.and_then(|class| class.dscp);
    let dscp = dscp.map_or_else(String::new, |dscp| format!(" (DSCP {dscp})"));
    note(edit::CLASS, "class", json!(name), format!("puts it into class {name}{dscp}"));
    note(edit::DSCP, "dscp", json!(set.dscp), format!("sets DSCP {}", set.dscp));
    note(edit::MSS, "mss", json!(set.mss), format!("lowers the MSS to {}", set.mss));
    let options = OPTIONS.iter().filter(|(bit, _)| set.tcp_options & bit != 0);
    let options: Vec<&str> = options.map(|(_, name)| *name).collect();
    let text = format!("takes TCP options out: {}", options.join(", "));
    note(edit::TCP_OPTIONS, "tcp_options", json!(options), text);
    note(edit::MIRROR, "mirror", json!(true), "mirrors it".to_owned());
    (words, details)
}

#[cfg(test)]
mod tests {
    use super::*;
    use frame::HookPoint;
    use sluice_abi::Edit;
    use tables::{Class, Way};

    fn actions() -> Actions {
        let detour = |name: &str| Some(Detour { name: name.into(), way: Way::Here });
        Actions {
            next_hops: vec![None, detour("scrubber")],
            tags: vec![None, detour("cheap")],
            classes: vec![None, Some(Class { name: "voice".into(), dscp: Some(46) })],
        }
    }

    fn words(act: Act, flags: u8, edit: Edit) -> String {
        let (point, plugin, generation) = (HookPoint::Ingress, 0, 1);
        let deed = Deed { position: 0, point, plugin, generation, act, flags, edit };
        deed_words(&deed, &actions()).0.join(", ")
    }

    #[test]
    fn each_act_has_its_words() {
        let edit = Edit {
            mark: 7,
            tag: 1,
            mss: 1000,
            class: 1,
            dscp: 10,
            tcp_options: 5,
            ..Edit::default()
        };
        assert_eq!(words(Act::Edit, 0, edit), "");
        assert_eq!(
            words(Act::Edit, 0x7f, edit),
            "sets mark 7, sets egress tag cheap, puts it into class voice (DSCP 46), sets DSCP 10, \
             lowers the MSS to 1000, takes TCP options out: window scale, timestamps, mirrors it"
        );
        assert_eq!(words(Act::Transmit(1), 0, edit), "sends it to next hop scrubber");
        assert_eq!(words(Act::Transmit(2), 0, edit), "sends it to next hop number 2");
        assert_eq!(words(Act::Drop, edit::MIRROR, edit), "mirrors it");
        assert_eq!(
            words(Act::Bad("an MSS below 216 bytes"), 0, edit),
            "gives a bad verdict (an MSS below 216 bytes), so that its default counts"
        );
    }
}
