//! Numbers of the names that plugins use: a name keeps its number as long as the process runs.
//!
//! A plugin asks for a number once, when it is configured, and may use it for as long as it likes. Were a
//! number given to another name when the first one is taken out of the configuration, packets would go
//! where nobody sent them; so it never is, and a router that has seen too many names says so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use config::Checked;

use super::PublicationError;

/// What a configuration names, with numbers from 1 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ActionNames {
    /// `[[next_hop]]`, up to [`tables::NUMBERS_MAX`].
    pub next_hops: BTreeMap<String, u16>,
    /// `[[egress_tag]]`, up to [`tables::NUMBERS_MAX`].
    pub tags: BTreeMap<String, u16>,
    /// `[[class]]`, up to [`tables::CLASSES_MAX`].
    pub classes: BTreeMap<String, u16>,
    /// `[[interface]]`: its position plus 1.
    pub interfaces: BTreeMap<String, u16>,
}

impl ActionNames {
    /// The names of a configuration, with the numbers that they have in a router that starts with it.
    ///
    /// # Errors
    /// [`PublicationError::Names`].
    pub fn at_start(config: &Checked) -> Result<Self, PublicationError> {
        Numbers::default().of(config)
    }
}

/// All names that there ever were. Copies are the same registry.
#[derive(Clone, Debug, Default)]
pub(super) struct Numbers(Arc<Mutex<Given>>);

/// Of each kind the names, in the order of their numbers.
#[derive(Debug, Default)]
struct Given {
    next_hops: Vec<String>,
    tags: Vec<String>,
    classes: Vec<String>,
}

impl Numbers {
    /// The names of a configuration, with the numbers that they have or get.
    ///
    /// # Errors
    /// [`PublicationError::Names`].
    pub(super) fn of(&self, config: &Checked) -> Result<ActionNames, PublicationError> {
        // Whoever panicked was adding a name, which is there or not.
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Given { next_hops, tags, classes } = &mut *given;
        let names = config.next_hops.iter().map(|hop| &hop.name);
        let next_hops = number(next_hops, names, tables::NUMBERS_MAX, "next hops")?;
        let names = config.egress_tags.iter().map(|tag| &tag.name);
        let tags = number(tags, names, tables::NUMBERS_MAX, "egress tags")?;
        let names = config.classes.iter().map(|class| &class.name);
        let classes = number(classes, names, tables::CLASSES_MAX.into(), "classes")?;
        let interfaces = config.interfaces.iter().map(|interface| interface.name.clone());
        Ok(ActionNames { next_hops, tags, classes, interfaces: interfaces.zip(1..).collect() })
    }
}

fn number<'a>(
    given: &mut Vec<String>,
    names: impl Iterator<Item = &'a String>,
    most: u16,
    what: &'static str,
) -> Result<BTreeMap<String, u16>, PublicationError> {
    let mut numbers = BTreeMap::new();
    for name in names {
        let position = match given.iter().position(|known| known == name) {
            Some(position) => position,
            None if given.len() >= usize::from(most) => {
                return Err(PublicationError::Names { what, most });
            }
            None => {
                given.push(name.clone());
                given.len() - 1
            }
        };
        numbers.insert(name.clone(), u16::try_from(position + 1).unwrap_or(most));
    }
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(classes: &[&str]) -> Checked {
        let classes: String =
            classes.iter().map(|name| format!("[[class]]\nname = \"{name}\"\n")).collect();
        let text = format!("[[interface]]\nname = \"eth0\"\nrole = \"both\"\n{classes}");
        Checked::parse(&text, "t.toml").expect("a configuration")
    }

    #[test]
    fn a_name_keeps_its_number_and_no_other_gets_it() {
        let numbers = Numbers::default();
        let of = |classes: &[&str]| numbers.of(&config(classes)).unwrap().classes;
        let pairs = |list: &[(&str, u16)]| -> BTreeMap<String, u16> {
            list.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
        };
        assert_eq!(of(&["a", "b"]), pairs(&[("a", 1), ("b", 2)]));
        assert_eq!(of(&["c", "b"]), pairs(&[("c", 3), ("b", 2)]));
        assert_eq!(of(&[]), pairs(&[]));
        assert_eq!(of(&["b", "a"]), pairs(&[("b", 2), ("a", 1)]));
        assert_eq!(numbers.of(&config(&[])).unwrap().interfaces, pairs(&[("eth0", 1)]));
    }

    #[test]
    fn when_the_numbers_are_used_up_a_configuration_is_refused() {
        let numbers = Numbers::default();
        for first in [0, 85, 170] {
            let names: Vec<_> = (first..first + 85).map(|n| format!("class-{n}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            assert!(numbers.of(&config(&names)).is_ok());
        }
        assert!(numbers.of(&config(&["class-0", "class-254"])).is_ok(), "both have a number");
        let error = numbers.of(&config(&["class-0", "one-more"])).unwrap_err();
        assert_eq!(
            error.to_string(),
            "there were more than 255 names of classes since the start: names that plugins know \
             keep their numbers, so that only a restart makes room for others"
        );
    }
}
