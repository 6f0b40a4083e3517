//! What routes lead to, each once: a million routes lead to a few hundred different things.

use std::collections::HashMap;
use std::sync::Arc;

use wire::InterfaceId;

use super::super::adjacencies::Adjacencies;
use super::super::host_view::{NextHopView, RouteView};
use super::groups::{Content, Groups};
use super::unexpressible::Unexpressible;
use crate::kernel::RouteKind;
use tables::RouteId;

/// Position of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TargetId(pub(super) u32);

impl TargetId {
    pub(super) const NONE: Self = Self(u32::MAX);
}

/// What a source says that a route leads to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Said {
    /// In the kernel's terms, which the numbers of interfaces belong to.
    Kernel(Arc<RouteKind>),
    /// In the router's terms.
    View(RouteView),
    /// A static route whose next hop is on none of the router's links.
    NoLink,
    /// To this machine.
    Own,
    /// To a broadcast address.
    Broadcast,
    /// What the default route leads to, which no other route shares a group with.
    Default(Box<Said>),
}

#[derive(Clone, Debug)]
struct Target {
    said: Said,
    content: Content,
    unexpressible: Option<Unexpressible>,
    /// Candidates that lead here.
    candidates: u32,
    /// Prefixes for which one of those was chosen. While there are some, the target has a group.
    chosen: u32,
    route: RouteId,
}

/// All targets.
#[derive(Clone, Debug, Default)]
pub(super) struct Targets {
    ids: HashMap<Said, TargetId>,
    list: Vec<Option<Target>>,
    free: Vec<TargetId>,
}

impl Targets {
    /// Takes part in a target, which is made if nobody has it.
    pub(super) fn acquire(&mut self, said: Said, links: &HashMap<u32, InterfaceId>) -> TargetId {
        if let Some(&id) = self.ids.get(&said) {
            if let Some(target) = self.get_mut(id) {
                target.candidates += 1;
            }
            return id;
        }
        let (content, unexpressible) = express(&said, links);
        let target = Target {
            said: said.clone(),
            content,
            unexpressible,
            candidates: 1,
            chosen: 0,
            route: RouteId::NONE,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.list[id.0 as usize] = Some(target);
                id
            }
            None => {
                let id =
                    TargetId(u32::try_from(self.list.len()).expect("fewer targets than routes"));
                self.list.push(Some(target));
                id
            }
        };
        self.ids.insert(said, id);
        id
    }

    /// One more candidate takes part in a target that somebody has.
    pub(super) fn keep(&mut self, id: TargetId) {
        if let Some(target) = self.get_mut(id) {
            target.candidates += 1;
        }
    }

    /// Ends the part of one candidate.
    pub(super) fn release(&mut self, id: TargetId) {
        let Some(target) = self.get_mut(id) else { return };
        target.candidates -= 1;
        if target.candidates == 0 {
            debug_assert_eq!(target.chosen, 0, "a target without candidates is chosen");
            if let Some(target) = self.list[id.0 as usize].take() {
                self.ids.remove(&target.said);
            }
            self.free.push(id);
        }
    }

    /// A prefix chooses the target from now on.
    pub(super) fn choose(
        &mut self,
        id: TargetId,
        groups: &mut Groups,
        adjacencies: &mut Adjacencies,
    ) {
        let Some(target) = self.get_mut(id) else { return };
        target.chosen += 1;
        if target.chosen == 1 {
            target.attach(groups, adjacencies);
        }
    }

    /// A prefix chooses it no more.
    pub(super) fn unchoose(&mut self, id: TargetId, groups: &mut Groups) {
        let Some(target) = self.get_mut(id) else { return };
        target.chosen -= 1;
        if target.chosen == 0 {
            groups.release(target.route);
            target.route = RouteId::NONE;
        }
    }

    /// The group of a target that is chosen.
    pub(super) fn route(&self, id: TargetId) -> RouteId {
        self.get(id).map_or(RouteId::NONE, |target| target.route)
    }

    pub(super) fn content(&self, id: TargetId) -> &Content {
        const NOWHERE: &Content = &Content::Route(RouteView::Unreachable);
        self.get(id).map_or(NOWHERE, |target| &target.content)
    }

    /// Why the packet path cannot do what the source said, where it cannot.
    pub(super) fn unexpressible(&self, id: TargetId) -> Option<Unexpressible> {
        self.get(id).and_then(|target| target.unexpressible)
    }

    /// Expresses all targets anew, after numbers of interfaces have changed, and tells which ones have
    /// changed and which groups they had. Those that are chosen have the right group afterwards; the
    /// prefixes that chose them have to be told.
    pub(super) fn express_anew(
        &mut self,
        links: &HashMap<u32, InterfaceId>,
        groups: &mut Groups,
        adjacencies: &mut Adjacencies,
    ) -> HashMap<TargetId, RouteId> {
        let mut changed = HashMap::new();
        for (target, position) in self.list.iter_mut().zip(0..) {
            let Some(target) = target else { continue };
            let (content, unexpressible) = express(&target.said, links);
            if content == target.content && unexpressible == target.unexpressible {
                continue;
            }
            (target.content, target.unexpressible) = (content, unexpressible);
            let before = target.route;
            if target.chosen > 0 {
                groups.release(target.route);
                target.attach(groups, adjacencies);
            }
            changed.insert(TargetId(position), before);
        }
        changed
    }

    /// The groups have these ids instead.
    pub(super) fn rename(&mut self, renamed: &HashMap<RouteId, RouteId>) {
        for target in self.list.iter_mut().flatten() {
            if !target.route.is_none() {
                target.route = renamed.get(&target.route).copied().unwrap_or(RouteId::NONE);
            }
        }
    }

    /// How many different targets there are.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    fn get(&self, id: TargetId) -> Option<&Target> {
        self.list.get(id.0 as usize)?.as_ref()
    }

    fn get_mut(&mut self, id: TargetId) -> Option<&mut Target> {
        self.list.get_mut(id.0 as usize)?.as_mut()
    }
}

impl Target {
    fn attach(&mut self, groups: &mut Groups, adjacencies: &mut Adjacencies) {
        self.route = match groups.acquire(&self.content, adjacencies) {
            Some(route) => {
                self.unexpressible.take_if(|why| *why == Unexpressible::TooManyGroups);
                route
            }
            None => {
                // No id is left: the kernel, which has the route, forwards for it.
                self.unexpressible = Some(Unexpressible::TooManyGroups);
                let kernel = Content::Route(RouteView::Kernel);
                groups.acquire(&kernel, adjacencies).unwrap_or(RouteId::NONE)
            }
        };
    }
}

/// What the packet path is to do, and why that is not what was said.
fn express(said: &Said, links: &HashMap<u32, InterfaceId>) -> (Content, Option<Unexpressible>) {
    let kernel = |why| (Content::Route(RouteView::Kernel), Some(why));
    let view = match said {
        Said::Own => return (Content::Route(RouteView::Kernel), None),
        Said::Broadcast => return (Content::Broadcast, None),
        Said::Default(said) => {
            return match express(said, links) {
                (Content::Route(view), why) => (Content::DefaultRoute(view), why),
                other => other,
            };
        }
        Said::NoLink => return kernel(Unexpressible::NoLink),
        Said::View(RouteView::Kernel) => return kernel(Unexpressible::Described),
        Said::View(view) => view.clone(),
        Said::Kernel(kind) => match &**kind {
            RouteKind::Blackhole => RouteView::Blackhole,
            RouteKind::Unreachable => RouteView::Unreachable,
            RouteKind::Prohibit => RouteView::Prohibit,
            RouteKind::Local => return (Content::Route(RouteView::Kernel), None),
            RouteKind::NotExpressible(reason) => return kernel(Unexpressible::Kernel(*reason)),
            RouteKind::NextHops(hops) => {
                let mut views = Vec::with_capacity(hops.len());
                for hop in hops {
                    // Over an interface that is not the router's, even in part: the kernel forwards.
                    let Some(&interface) = links.get(&hop.ifindex) else {
                        return kernel(Unexpressible::ForeignInterface(hop.ifindex));
                    };
                    views.push(NextHopView {
                        interface,
                        via: hop.via,
                        weight: u16::try_from(hop.weight).unwrap_or(u16::MAX),
                        mtu: u16::try_from(hop.mtu).unwrap_or(u16::MAX),
                    });
                }
                RouteView::NextHops(views)
            }
        },
    };
    if let RouteView::NextHops(hops) = &view
        && hops.len() > 1
        && hops.iter().any(|hop| hop.via.is_none())
    {
        return kernel(Unexpressible::OnLinkMember);
    }
    (Content::Route(view), None)
}
