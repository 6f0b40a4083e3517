//! [`Clause`]: values of some columns, all of which a packet must have; and how a condition of any
//! form becomes a list of them, of which it must have one (its disjunctive normal form).
//!
//! ```text
//!  not (a or b) and (c or d)  -->  not a, not b, c | not a, not b, d
//! ```
//!
//! Clauses that differ in one column only become one, so that alternatives within a field cost
//! nothing; what remains is bounded by [`CLAUSES_PER_RULE_MAX`].

use std::collections::BTreeMap;

use crate::column::{Column, Values};

/// The most clauses that the condition of one rule may come to.
pub const CLAUSES_PER_RULE_MAX: usize = 64;

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The packet has one of these values.
    Test(Column, Values),
    /// All of these hold.
    And(Vec<Condition>),
    /// One of these holds.
    Or(Vec<Condition>),
    /// This does not hold.
    Not(Box<Condition>),
}

/// A conjunction: the values of each column that is asked about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clause(BTreeMap<Column, Values>);

/// A condition that comes to too many clauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManyClauses;

impl Clause {
    /// The values of a column, if it is asked about.
    #[must_use]
    pub fn get(&self, column: Column) -> Option<&Values> {
        self.0.get(&column)
    }

    /// Asks for one of `values`, besides what was asked for already. False when no packet can have
    /// all of it.
    pub fn require(&mut self, column: Column, values: &Values) -> bool {
        let both = match self.0.get(&column) {
            None => values.clone(),
            Some(already) => already.intersection(values),
        };
        if both.is_empty() {
            return false;
        }
        if !both.is_all(column) {
            self.0.insert(column, both);
        }
        true
    }

    /// Number of ranges in all columns.
    #[must_use]
    pub fn ranges(&self) -> usize {
        self.0.values().map(Values::len).sum()
    }

    /// Both at once, if a packet can have both.
    fn and(&self, other: &Self) -> Option<Self> {
        let mut both = self.clone();
        other.0.iter().all(|(column, values)| both.require(*column, values)).then_some(both)
    }

    /// The one clause that says the same as this one or that one, where they differ in one column.
    fn or(&self, other: &Self) -> Option<Self> {
        let columns = |clause: &Self| clause.0.keys().copied().collect::<Vec<_>>();
        if columns(self) != columns(other) {
            return None;
        }
        let mut differing = self.0.iter().filter(|(column, values)| other.0[column] != **values);
        let Some((column, values)) = differing.next() else { return Some(self.clone()) };
        if differing.next().is_some() {
            return None;
        }
        let mut one = self.clone();
        let either = values.union(&other.0[column]);
        if either.is_all(*column) {
            one.0.remove(column);
        } else {
            one.0.insert(*column, either);
        }
        Some(one)
    }

    /// Whether every packet that has what `other` asks for has what this one asks for.
    fn holds(&self, other: &Self) -> bool {
        self.0.iter().all(|(column, values)| {
            other.0.get(column).is_some_and(|theirs| theirs.intersection(values) == *theirs)
        })
    }
}

/// Adds an alternative, merged with those that are there.
fn add(clauses: &mut Vec<Clause>, mut new: Clause) -> Result<(), TooManyClauses> {
    let mut position = 0;
    while let Some(clause) = clauses.get(position) {
        if clause.holds(&new) {
            return Ok(());
        }
        let merged = if new.holds(clause) { Some(new.clone()) } else { clause.or(&new) };
        match merged {
            None => position += 1,
            Some(merged) => {
                // What it became may merge with those before, too.
                clauses.swap_remove(position);
                new = merged;
                position = 0;
            }
        }
    }
    if clauses.len() == CLAUSES_PER_RULE_MAX {
        return Err(TooManyClauses);
    }
    clauses.push(new);
    Ok(())
}

impl Condition {
    /// The clauses of which one must hold; none, if the condition never does.
    ///
    /// # Errors
    /// [`TooManyClauses`].
    pub fn clauses(&self) -> Result<Vec<Clause>, TooManyClauses> {
        self.normal(false)
    }

    fn normal(&self, is_negated: bool) -> Result<Vec<Clause>, TooManyClauses> {
        match (self, is_negated) {
            (Self::Test(column, values), _) => {
                let values = if is_negated { values.complement(*column) } else { values.clone() };
                let mut clause = Clause::default();
                Ok(if clause.require(*column, &values) { vec![clause] } else { Vec::new() })
            }
            (Self::Not(inner), _) => inner.normal(!is_negated),
            (Self::Or(terms), false) | (Self::And(terms), true) => {
                let mut clauses = Vec::new();
                for term in terms {
                    for clause in term.normal(is_negated)? {
                        add(&mut clauses, clause)?;
                    }
                }
                Ok(clauses)
            }
            (Self::And(terms), false) | (Self::Or(terms), true) => {
                let mut clauses = vec![Clause::default()];
                for term in terms {
                    let alternatives = term.normal(is_negated)?;
                    let mut product = Vec::new();
                    for clause in &clauses {
                        for both in alternatives.iter().filter_map(|other| clause.and(other)) {
                            add(&mut product, both)?;
                        }
                    }
                    clauses = product;
                }
                Ok(clauses)
            }
        }
    }
}
