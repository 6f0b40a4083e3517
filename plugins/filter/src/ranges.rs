//! [`Ranges`]: a set of numbers as sorted ranges that neither overlap nor touch.

/// A set of numbers, each range with both its ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges(Vec<(u128, u128)>);

impl Ranges {
    /// The numbers of any ranges, in any order; empty ones are left out.
    #[must_use]
    pub fn new(ranges: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|(first, last)| first <= last).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// All numbers up to `top`.
    #[must_use]
    pub fn all(top: u128) -> Self {
        Self(vec![(0, top)])
    }

    /// The ranges, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[(u128, u128)] {
        &self.0
    }

    /// Whether no number is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether all numbers up to `top` are in it.
    #[must_use]
    pub fn is_all(&self, top: u128) -> bool {
        self.0 == [(0, top)]
    }

    /// The numbers up to `top` that are not in it.
    #[must_use]
    pub fn complement(&self, top: u128) -> Self {
        let mut gaps = Vec::with_capacity(self.0.len() + 1);
        let mut next = Some(0);
        for (first, last) in &self.0 {
            if let Some(start) = next
                && start < *first
            {
                gaps.push((start, first - 1));
            }
            next = last.checked_add(1);
        }
        if let Some(start) = next
            && start <= top
        {
            gaps.push((start, top));
        }
        Self(gaps)
    }

    /// The numbers of either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self::new(self.0.iter().chain(&other.0).copied())
    }

    /// The numbers of both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        let (mut ours, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        let mut both = Vec::new();
        while let (Some((a, b)), Some((c, d))) = (ours.peek(), theirs.peek()) {
            let (first, last) = (*a.max(c), *b.min(d));
            if first <= last {
                both.push((first, last));
            }
            if b <= d {
                ours.next()
            } else {
                theirs.next()
            };
        }
        Self(both)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ranges() -> impl Strategy<Value = Vec<(u128, u128)>> {
        prop::collection::vec((0_u128..20, 0_u128..20), 0..6)
    }

    fn has(ranges: &Ranges, number: u128) -> bool {
        ranges.0.iter().any(|(first, last)| (*first..=*last).contains(&number))
    }

    proptest! {
        #[test]
        fn sets_are_sets(a in ranges(), b in ranges()) {
            let (x, y) = (Ranges::new(a.clone()), Ranges::new(b));
            let (union, both, not) = (x.union(&y), x.intersection(&y), x.complement(19));
            for set in [&x, &union, &both, &not] {
                prop_assert!(set.0.iter().all(|(first, last)| first <= last));
                prop_assert!(set.0.windows(2).all(|two| two[0].1 + 1 < two[1].0));
            }
            for n in 0..20 {
                prop_assert_eq!(has(&x, n), a.iter().any(|(first, last)| (*first..=*last).contains(&n)));
                prop_assert_eq!(has(&union, n), has(&x, n) || has(&y, n));
                prop_assert_eq!(has(&both, n), has(&x, n) && has(&y, n));
                prop_assert_eq!(has(&not, n), !has(&x, n));
            }
            prop_assert!(not.union(&x).is_all(19));
        }
    }

    #[test]
    fn the_last_number_has_none_behind_it() {
        let top = Ranges::new([(5, u128::MAX), (9, 3)]);
        assert_eq!(top.complement(u128::MAX).as_slice(), [(0, 4)]);
        assert!(Ranges::default().complement(u128::MAX).is_all(u128::MAX));
        assert!(top.union(&Ranges::new([(0, 4)])).is_all(u128::MAX));
    }
}
