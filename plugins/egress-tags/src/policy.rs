//! [`Policy`]: the decision, of numbers only.
//!
//! Each word of the rules is a class of its column (country, trust, product), 0 is everything else; the
//! first matching rule of each combination is written down when the policy is made, so that a packet
//! costs a look at each column and one at the answers.

/// Columns: country, trust, product.
pub(crate) const COLUMNS: usize = 3;

/// The most combinations of classes.
const COMBINATIONS_MAX: usize = 1 << 16;

/// A rule: in each column the classes of which one must be the packet's; empty, whatever it is.
pub(crate) type Rule = [Vec<u8>; COLUMNS];

/// The first matching rule by class.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Combinations for each class of a column.
    steps: [usize; COLUMNS],
    /// The rule of each combination.
    rules: Box<[Option<u16>]>,
}

impl Policy {
    /// The policy of some rules, where column *i* has `classes[i]` classes, 0 among them. `None` when
    /// they have too many combinations.
    pub(crate) fn new(classes: [usize; COLUMNS], rules: &[Rule]) -> Option<Self> {
        let combinations = classes.iter().product::<usize>();
        if combinations > COMBINATIONS_MAX {
            return None;
        }
        let steps = [classes[1] * classes[2], classes[2], 1];
        let first = |combination: usize| {
            let has = |(column, wanted): (usize, &Vec<u8>)| {
                let class = combination / steps[column] % classes[column];
                wanted.is_empty() || wanted.iter().any(|wanted| usize::from(*wanted) == class)
            };
            rules.iter().position(|rule| rule.iter().enumerate().all(has)).map(|rule| rule as u16)
        };
        Some(Self { steps, rules: (0..combinations).map(first).collect() })
    }

    /// The first rule for these classes.
    #[inline]
    pub(crate) fn first(&self, classes: [u8; COLUMNS]) -> Option<u16> {
        let step = |column: usize| usize::from(classes[column]) * self.steps[column];
        self.rules.get(step(0) + step(1) + step(2)).copied().flatten()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_decision_is_the_first_match(
            rules in prop::collection::vec(
                [
                    prop::collection::vec(1_u8..5, 0..3),
                    prop::collection::vec(1_u8..3, 0..2),
                    prop::collection::vec(1_u8..4, 0..3),
                ],
                0..8,
            ),
        ) {
            let policy = Policy::new([5, 3, 4], &rules).expect("few combinations");
            for country in 0..5 {
                for trust in 0..3 {
                    for product in 0..4 {
                        let classes = [country, trust, product];
                        let first = rules.iter().position(|rule| {
                            let mut columns = rule.iter().zip(classes);
                            columns.all(|(wanted, class)| wanted.is_empty() || wanted.contains(&class))
                        });
                        prop_assert_eq!(policy.first(classes).map(usize::from), first);
                    }
                }
            }
        }
    }

    #[test]
    fn too_many_combinations_are_refused() {
        assert!(Policy::new([256, 256, 1], &[]).is_some());
        assert!(Policy::new([256, 256, 2], &[]).is_none());
    }
}
