//! One worker against a model, several against the budget.

use std::{
    collections::{HashMap, HashSet},
    sync::Barrier,
    thread,
};

use proptest::prelude::*;

use super::*;

const S: u64 = 1_000_000_000;

fn terms(budget: u32) -> Terms {
    Terms { budget, lifetime_ns: 10 * S }
}

fn ask(table: &QuotaTable, terms: Terms, group: u8, member: u32, now: u64) -> u8 {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&member.to_le_bytes());
    table.ask(terms, table.hashes([group; 16], key), now, &mut PATIENCE.clone())
}

fn leave(table: &QuotaTable, group: u8, member: u32, now: u64) -> u8 {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&member.to_le_bytes());
    table.leave(table.hashes([group; 16], key), now, &mut PATIENCE.clone())
}

/// Has a member leave, as [`insist`] asks. Whether it was in.
fn insist_on_leaving(table: &QuotaTable, group: u8, member: u32, now: u64) -> bool {
    loop {
        match leave(table, group, member, now) {
            departure::BUSY => thread::yield_now(),
            departure => return departure == departure::LEFT,
        }
    }
}

/// Asks until there is an answer other than that somebody was interrupted in the middle of something.
fn insist(table: &QuotaTable, terms: Terms, group: u8, member: u32, now: u64) -> bool {
    loop {
        match ask(table, terms, group, member, now) {
            answer::NO_ROOM => thread::yield_now(),
            answer => return answer == answer::ADMITTED,
        }
    }
}

/// What must hold when nobody is busy: numbers, rings and records agree.
fn check(table: &QuotaTable) {
    let mut linked = HashSet::new();
    for (place, tag) in table.group_tags.buckets.iter().flat_map(|bucket| &bucket.0).enumerate() {
        if tag.load(Ordering::Relaxed) == 0 {
            continue;
        }
        let group = &table.groups[place];
        let count = group.members.load(Ordering::Relaxed);
        assert!(count > 0, "a group without members");
        let mut at = group.cursor.load(Ordering::Relaxed);
        for _ in 0..count {
            let member = &table.members[at as usize];
            assert!(linked.insert(at), "a record in two rings, or twice in one");
            assert_eq!(member.group.load(Ordering::Relaxed) as usize, place);
            assert_ne!(member.deadline.load(Ordering::Relaxed), 0);
            let next = member.next.load(Ordering::Relaxed);
            assert_eq!(table.members[next as usize].previous.load(Ordering::Relaxed), at);
            at = next;
        }
        assert_eq!(at, group.cursor.load(Ordering::Relaxed), "a ring does not close");
    }
    let mut seen = HashSet::new();
    for (place, tag) in (0..).zip(table.member_tags.buckets.iter().flat_map(|bucket| &bucket.0)) {
        let tag = tag.load(Ordering::Relaxed);
        assert_eq!(tag != 0, linked.contains(&place));
        assert!(tag == 0 || seen.insert(tag), "a member is there twice");
        if tag == 0 {
            assert_eq!(table.members[place as usize].deadline.load(Ordering::Relaxed), 0);
        }
    }
}

#[test]
fn two_bursts_on_two_workers_are_admitted_exactly() {
    for round in 0..200_u32 {
        let table = QuotaTable::new(1024);
        let barrier = Barrier::new(2);
        let admitted = thread::scope(|scope| {
            let burst = |members: std::ops::Range<u32>| {
                let (table, barrier) = (&table, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let admitted = members.filter(|member| insist(table, terms(10), 1, *member, S));
                    admitted.collect::<Vec<_>>()
                })
            };
            let threads = [burst(0..8), burst(8..15)];
            threads.map(|thread| thread.join().expect("no panic")).concat()
        });
        assert_eq!(admitted.len(), 10, "round {round}: {admitted:?}");
        check(&table);
        // Asked again, by whichever worker, each gets the answer that it had.
        for member in 0..15 {
            let expected = u8::from(admitted.contains(&member));
            assert_eq!(ask(&table, terms(10), 1, member, 2 * S), expected, "member {member}");
        }
    }
}

#[test]
fn a_member_is_looked_for_without_a_trace() {
    let table = QuotaTable::new(64);
    let contains = |group: u8, member: u32, now| {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&member.to_le_bytes());
        table.contains(table.hashes([group; 16], key).0, now)
    };
    assert!(!contains(1, 7, S));
    assert_eq!(ask(&table, terms(1), 1, 7, S), answer::ADMITTED);
    assert_eq!(ask(&table, terms(1), 1, 8, S), answer::FULL);
    let before = table.status(0);
    // To look takes no budget, and does not put off the end: it is over ten seconds after it was admitted.
    for now in [S, 5 * S, 11 * S - 1] {
        assert!(contains(1, 7, now));
        assert!(!contains(1, 8, now) && !contains(2, 7, now));
    }
    assert!(!contains(1, 7, 11 * S));
    assert_eq!(table.status(0), before);
    check(&table);
    // Its place goes to the next one.
    assert_eq!(ask(&table, terms(1), 1, 8, 11 * S), answer::ADMITTED);
    assert!(contains(1, 8, 12 * S) && !contains(1, 7, 12 * S));
}

#[test]
fn a_member_that_leaves_returns_its_budget_at_once() {
    let table = QuotaTable::new(64);
    assert_eq!([1, 2, 3].map(|member| ask(&table, terms(2), 0, member, S)), [1, 1, 0]);
    assert_eq!(leave(&table, 0, 3, S), departure::ABSENT, "it was refused");
    assert_eq!(leave(&table, 1, 1, S), departure::ABSENT, "it is in another group");
    assert_eq!(ask(&table, terms(2), 0, 3, S), 0, "so that nothing has returned");
    assert_eq!(leave(&table, 0, 1, S), departure::LEFT);
    assert_eq!(leave(&table, 0, 1, S), departure::ABSENT, "nobody leaves twice");
    check(&table);
    assert_eq!([3, 1].map(|member| ask(&table, terms(2), 0, member, S)), [1, 0]);
    // Whose time is over is not in, and its place is free as well.
    assert_eq!(leave(&table, 0, 2, 11 * S), departure::ABSENT);
    assert_eq!(leave(&table, 0, 3, 11 * S - 1), departure::LEFT);
    check(&table);
    let status = table.status(0);
    assert_eq!((status.members, status.groups, status.departures), (0, 0, 2));
}

#[test]
fn who_may_not_change_a_group_leaves_all_the_same_and_returns_its_budget_when_it_is_wanted() {
    let table = QuotaTable::new(64);
    assert_eq!([1, 2, 3].map(|member| ask(&table, terms(2), 0, member, S)), [1, 1, 0]);
    let claim_all = |tags: &Tags, is_taken| {
        tags.claims.iter().for_each(|claim| claim.store(is_taken, Ordering::Relaxed));
    };
    claim_all(&table.member_tags, true);
    assert_eq!(leave(&table, 0, 1, S), departure::BUSY);
    assert_eq!(leave(&table, 0, 7, S), departure::ABSENT, "whoever is not in needs no claim");
    claim_all(&table.member_tags, false);
    assert_eq!(ask(&table, terms(2), 0, 3, S), 0, "nothing has changed");
    claim_all(&table.group_tags, true);
    assert_eq!(leave(&table, 0, 1, S), departure::LEFT);
    assert_eq!(leave(&table, 0, 1, S), departure::ABSENT);
    let one = table
        .hashes([0; 16], {
            let mut key = [0; 16];
            key[0] = 1;
            key
        })
        .0;
    assert!(!table.contains(one, 1), "whatever the time is");
    claim_all(&table.group_tags, false);
    check(&table);
    assert_eq!([3, 1].map(|member| ask(&table, terms(2), 0, member, S)), [1, 0]);
    check(&table);
}

#[test]
fn workers_that_admit_and_leave_at_once_share_a_budget_exactly_and_lose_no_place() {
    const BUDGET: u32 = 5;
    let table = QuotaTable::new(256);
    // What has been told, rather than what is in the table: of each group at most so many are inside.
    let inside: [AtomicU32; 3] = Default::default();
    let barrier = Barrier::new(3);
    thread::scope(|scope| {
        for worker in 0..3_u32 {
            let (table, inside, barrier) = (&table, &inside, &barrier);
            scope.spawn(move || {
                barrier.wait();
                let mut random = u64::from(worker) + 1;
                let mut mine = Vec::new();
                for step in 0..40_000 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let group = (random >> 33) as u8 % 3;
                    let number = &inside[usize::from(group)];
                    if random >> 63 == 0 || mine.len() > 8 {
                        let Some((group, member)) = mine.pop() else { continue };
                        inside[usize::from(group)].fetch_sub(1, Ordering::SeqCst);
                        assert!(insist_on_leaving(table, group, member, S));
                        assert!(!insist_on_leaving(table, group, member, S), "it has left");
                        continue;
                    }
                    // A member of this worker's own, so that it knows when that is in.
                    let member = worker << 24 | step;
                    if insist(table, terms(BUDGET), group, member, S) {
                        let before = number.fetch_add(1, Ordering::SeqCst);
                        assert!(before < BUDGET, "{before} were inside");
                        mine.push((group, member));
                    }
                }
                for (group, member) in mine {
                    inside[usize::from(group)].fetch_sub(1, Ordering::SeqCst);
                    assert!(insist_on_leaving(table, group, member, S));
                }
            });
        }
    });
    check(&table);
    let status = table.status(0);
    assert_eq!((status.members, status.groups), (0, 0), "no place is lost");
    assert_eq!(status.admissions, status.departures, "who came has left, and nobody twice");
    assert!(status.refusals > 0, "budgets were used up");
    // Each group has its whole budget again.
    for group in 0..3 {
        let admitted = (0..20).filter(|member| insist(&table, terms(BUDGET), group, *member, S));
        assert_eq!(admitted.count(), BUDGET as usize);
    }
}

#[test]
fn of_workers_that_have_one_member_leave_only_one_is_told_that_it_did() {
    let table = QuotaTable::new(16);
    let (told, barrier) = (AtomicU32::new(0), Barrier::new(3));
    thread::scope(|scope| {
        for worker in 0..3 {
            let (table, told, barrier) = (&table, &told, &barrier);
            scope.spawn(move || {
                for _ in 0..2000 {
                    if worker == 0 {
                        assert!(insist(table, terms(1), 0, 7, S));
                    }
                    barrier.wait();
                    told.fetch_add(insist_on_leaving(table, 0, 7, S).into(), Ordering::Relaxed);
                    barrier.wait();
                }
            });
        }
    });
    assert_eq!(told.load(Ordering::Relaxed), 2000);
    check(&table);
}

#[test]
fn members_that_leave_expire_and_come_back_under_several_workers_never_exceed_a_budget() {
    let table = QuotaTable::new(64);
    let short = Terms { budget: 5, lifetime_ns: 50 };
    thread::scope(|scope| {
        for seed in 0..3_u64 {
            let table = &table;
            scope.spawn(move || {
                let mut random = seed + 1;
                for step in 0..30_000_u64 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    // The same members on all workers.
                    let (group, member) = ((random >> 33) as u8 % 6, (random >> 43) as u32 % 30);
                    if random >> 62 == 0 {
                        leave(table, group, member, 1 + step);
                    } else {
                        ask(table, short, group, member, 1 + step);
                    }
                    for group in &table.groups {
                        assert!(group.members.load(Ordering::Relaxed) <= 5);
                    }
                }
            });
        }
    });
    check(&table);
    let long_after = 1_000_000;
    for group in 0..6 {
        for member in 0..30 {
            assert!(!insist_on_leaving(&table, group, member, long_after));
        }
    }
    assert_eq!((table.status(0).members, table.status(0).groups), (0, 0), "no place is lost");
}

#[test]
fn who_looks_while_members_come_and_go_is_told_of_none_that_never_was() {
    let table = QuotaTable::new(32);
    let barrier = Barrier::new(2);
    let hash = |member: u32| {
        let mut key = [0; 16];
        key[..4].copy_from_slice(&member.to_le_bytes());
        table.hashes([1; 16], key).0
    };
    // Short lives, so that records change hands; what is looked for is never admitted but for one.
    let short = Terms { budget: 1000, lifetime_ns: 1 };
    let long = Terms { budget: 1000, lifetime_ns: u64::MAX };
    assert_eq!(ask(&table, long, 1, 1_000_000, 1), answer::ADMITTED);
    thread::scope(|scope| {
        scope.spawn(|| {
            barrier.wait();
            for round in 0..100_000_u32 {
                ask(&table, short, 1, round % 512, u64::from(round) + 1);
            }
        });
        barrier.wait();
        for round in 0..100_000_u32 {
            assert!(table.contains(hash(1_000_000), 1));
            assert!(!table.contains(hash(600 + round % 512), 1));
        }
    });
    check(&table);
}

#[test]
fn workers_that_ask_for_the_same_members_agree_about_them() {
    for _ in 0..100 {
        let table = QuotaTable::new(256);
        let barrier = Barrier::new(3);
        let answers = thread::scope(|scope| {
            let threads = [0, 1, 2].map(|shift| {
                let (table, barrier) = (&table, &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    let mut answers = [false; 40];
                    for step in 0..40 {
                        let member = (step + 13 * shift) % 40;
                        answers[member] = insist(table, terms(9), 3, member as u32, S);
                    }
                    answers
                })
            });
            threads.map(|thread| thread.join().expect("no panic"))
        });
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0], answers[2]);
        assert_eq!(answers[0].iter().filter(|admitted| **admitted).count(), 9);
        check(&table);
    }
}

#[test]
fn members_that_come_and_go_under_several_workers_never_exceed_a_budget() {
    let table = QuotaTable::new(64);
    let short = Terms { budget: 5, lifetime_ns: 50 };
    thread::scope(|scope| {
        for seed in 0..3_u64 {
            let table = &table;
            scope.spawn(move || {
                let mut random = seed + 1;
                for step in 0..30_000_u64 {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    let group = (random >> 33) as u8 % 6;
                    let member = (random >> 43) as u32 % 30;
                    ask(table, short, group, member, 1 + step);
                    // An answer is a promise only to who asked; the number is one to all.
                    for group in &table.groups {
                        assert!(group.members.load(Ordering::Relaxed) <= 5);
                    }
                }
            });
        }
    });
    check(&table);
}

#[test]
fn a_member_lives_until_its_lifetime_is_over_without_a_packet() {
    let table = QuotaTable::new(64);
    let two = terms(2);
    assert_eq!([1, 2, 3].map(|member| ask(&table, two, 0, member, S)), [1, 1, 0]);
    // Member 1 goes on, member 2 is silent.
    for now in 2..=10 {
        assert_eq!(ask(&table, two, 0, 1, now * S), 1);
        assert_eq!(ask(&table, two, 0, 3, now * S), 0);
    }
    assert_eq!(ask(&table, two, 0, 3, 11 * S - 1), 0, "the last moment of member 2");
    assert_eq!(ask(&table, two, 0, 3, 11 * S), 1, "its budget returned");
    assert_eq!(ask(&table, two, 0, 2, 11 * S), 0, "and is not its own any more");
    assert_eq!(ask(&table, two, 0, 1, 19 * S), 1, "in the middle of a flow");
    assert_eq!(ask(&table, two, 0, 1, 29 * S), 1, "over, but nobody wanted its budget");
    check(&table);
    // Time that goes back moves no deadline back.
    assert_eq!(ask(&table, two, 0, 1, 5 * S), 1);
    assert_eq!(ask(&table, two, 0, 1, 39 * S - 1), 1);
}

#[test]
fn without_room_nothing_is_denied_and_nothing_counted() {
    let table = QuotaTable::new(16);
    let answers: Vec<u8> = (0..1000).map(|member| ask(&table, terms(2000), 0, member, S)).collect();
    let admitted = answers.iter().filter(|answer| **answer == answer::ADMITTED).count();
    assert!((16..=24).contains(&admitted), "{admitted}");
    assert!(!answers.contains(&answer::FULL));
    let status = table.status(3);
    assert_eq!((status.handle, status.members, status.groups), (3, admitted, 1));
    assert_eq!(status.overflows as usize, 1000 - admitted);
    for (member, answer) in (0..).zip(&answers) {
        let again = ask(&table, terms(2000), 0, member, S);
        assert_eq!(again, *answer, "member {member}: those who are in stay in");
    }
    // All are over: there is room again.
    assert_eq!(ask(&table, terms(2000), 1, 5000, 12 * S), 1);
    check(&table);
}

#[test]
fn budget_of_large_groups_returns_within_some_asks() {
    let table = QuotaTable::new(4096);
    let budget = terms(1000);
    assert!((0..1000).all(|member| ask(&table, budget, 0, member, S) == 1));
    // All but 100 go on.
    assert!((100..1000).all(|member| ask(&table, budget, 0, member, 5 * S) == 1));
    let admitted =
        (0..1000).filter(|number| ask(&table, budget, 0, 2000 + number, 12 * S) == 1).count();
    assert_eq!(admitted, 100);
    check(&table);
}

#[test]
fn an_interrupted_worker_holds_nobody_up() {
    let table = QuotaTable::new(64);
    assert_eq!(ask(&table, terms(5), 0, 1, S), 1);
    let claims = [&table.member_tags, &table.group_tags].map(|tags| {
        tags.claims.iter().for_each(|claim| claim.store(true, Ordering::Relaxed));
        tags
    });
    assert_eq!(ask(&table, terms(5), 0, 1, 2 * S), 1, "who is known needs no claim");
    assert_eq!(ask(&table, terms(5), 0, 2, 2 * S), answer::NO_ROOM);
    for tags in claims {
        tags.claims.iter().for_each(|claim| claim.store(false, Ordering::Relaxed));
    }
    assert_eq!(ask(&table, terms(5), 0, 2, 2 * S), 1);
}

#[test]
fn copies_answer_alike_and_apart() {
    let table = QuotaTable::new(64);
    assert_eq!([1, 2, 3].map(|member| ask(&table, terms(2), 0, member, S)), [1, 1, 0]);
    let copy = table.copy();
    check(&copy);
    assert_eq!([1, 2, 3].map(|member| ask(&copy, terms(2), 0, member, S)), [1, 1, 0]);
    assert_eq!(ask(&copy, terms(3), 0, 3, S), 1);
    assert_eq!(ask(&table, terms(2), 0, 3, S), 0, "the copy's members are its own");
}

#[test]
fn quotas_outlive_generations_of_the_same_size() {
    let registry = QuotaRegistry::default();
    let first = registry.open("a", 0, 100);
    assert!(Arc::ptr_eq(&first, &registry.open("a", 0, 100)));
    assert!(!Arc::ptr_eq(&first, &registry.open("a", 0, 101)));
    assert!(!Arc::ptr_eq(&first, &registry.open("b", 0, 100)));
    registry.prune();
    assert_eq!(registry.status("a").len(), 1);
}

/// Members with their deadlines, by group.
#[derive(Default)]
struct Model(HashMap<u8, HashMap<u32, u64>>);

impl Model {
    fn ask(&mut self, terms: Terms, group: u8, member: u32, now: u64) -> u8 {
        let members = self.0.entry(group).or_default();
        // A member that is over keeps its place until somebody needs it.
        if members.len() >= terms.budget as usize && !members.contains_key(&member) {
            members.retain(|_, deadline| *deadline > now);
        }
        if members.len() >= terms.budget as usize && !members.contains_key(&member) {
            return 0;
        }
        let deadline = members.entry(member).or_default();
        *deadline = (now + terms.lifetime_ns).max(*deadline);
        1
    }

    fn leave(&mut self, group: u8, member: u32, now: u64) -> u8 {
        let deadline = self.0.entry(group).or_default().remove(&member);
        u8::from(deadline.is_some_and(|deadline| deadline > now))
    }
}

proptest! {
    #[test]
    fn one_worker_answers_as_the_model_does(
        budget in 1_u32..12,
        asks in prop::collection::vec((0_u8..4, 0_u32..25, 0_u64..4), 1..400),
    ) {
        let table = QuotaTable::new(256);
        let mut model = Model::default();
        let terms = Terms { budget, lifetime_ns: 12 };
        let mut now = 0;
        for (group, member, later) in asks {
            now += later;
            let expected = model.ask(terms, group, member, now);
            prop_assert_eq!(ask(&table, terms, group, member, now), expected);
        }
        check(&table);
    }

    #[test]
    fn one_worker_has_members_leave_as_the_model_does(
        budget in 1_u32..12,
        steps in prop::collection::vec((0_u8..4, 0_u32..25, 0_u64..4, 0_u8..3), 1..400),
    ) {
        let table = QuotaTable::new(256);
        let mut model = Model::default();
        let terms = Terms { budget, lifetime_ns: 12 };
        let mut now = 1;
        for (group, member, later, kind) in steps {
            now += later;
            if kind == 0 {
                prop_assert_eq!(leave(&table, group, member, now), model.leave(group, member, now));
            } else {
                let expected = model.ask(terms, group, member, now);
                prop_assert_eq!(ask(&table, terms, group, member, now), expected);
            }
        }
        check(&table);
        let left = model.0.values().map(HashMap::len).sum::<usize>();
        prop_assert_eq!(table.status(0).members, left);
    }
}
