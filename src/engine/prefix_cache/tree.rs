//! A radix tree of token sequences, each node with the state of its tokens.
//!
//! It knows neither models nor arrays: a node's payload is whatever can be [split](Part::split). An
//! edge holds up to [`NODE_TOKENS`] tokens; the children of a node begin with different tokens, so a
//! sequence has one path and nothing is held twice. The least recently used leaf goes first.

use std::collections::HashMap;
use std::ops::Range;

/// Most tokens of a node: what one eviction frees stays small.
pub const NODE_TOKENS: usize = 256;

/// The state of some consecutive tokens.
pub trait Part: Sized {
    /// Why it could not be split.
    type Error;

    /// What lies before token `at`, and the rest.
    fn split(&self, at: usize) -> Result<(Self, Self), Self::Error>;

    /// Bytes that it holds.
    fn nbytes(&self) -> u64;
}

/// What only the end of a node has: the state of layers that cannot be cut.
pub trait Mark {
    /// Bytes that it holds.
    fn nbytes(&self) -> u64;
}

type Id = u64;

struct Node<P, M> {
    parent: Id,
    tokens: Vec<u32>,
    part: P,
    mark: Option<M>,
    children: HashMap<u32, Id>,
    used: u64,
}

impl<P: Part, M: Mark> Node<P, M> {
    fn nbytes(&self) -> u64 {
        let tokens = size_of_val(&self.tokens[..]) as u64;
        tokens + self.part.nbytes() + self.mark.as_ref().map_or(0, Mark::nbytes)
    }
}

/// The tree. `R` tells roots apart: sequences under different ones share nothing.
pub struct Tree<R, P, M> {
    roots: HashMap<R, HashMap<u32, Id>>,
    nodes: HashMap<Id, Node<P, M>>,
    next: Id,
    clock: u64,
    bytes: u64,
}

/// The longest beginning of a sequence that the tree has.
pub struct Found<'t, P, M> {
    /// Its parts in order, with how many of their tokens belong to it; all but the last are whole.
    pub parts: Vec<(&'t P, usize)>,
    /// The mark at its end.
    pub mark: Option<&'t M>,
    /// Its tokens.
    pub len: usize,
}

/// The parent of the nodes under a root. No node has this id.
const NONE: Id = 0;

impl<R: std::hash::Hash + Eq + Clone, P: Part, M: Mark> Tree<R, P, M> {
    /// An empty tree.
    pub fn new() -> Self {
        Self {
            roots: HashMap::new(),
            nodes: HashMap::new(),
            next: NONE + 1,
            clock: 0,
            bytes: 0,
        }
    }

    /// Bytes that all parts and marks hold.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many of the first tokens of `tokens` are there; with `marked`, up to a mark.
    pub fn known(&self, root: &R, tokens: &[u32], marked: bool) -> usize {
        self.path(root, tokens, marked).1
    }

    /// The longest beginning of `tokens` that is there; with `marked`, one that ends at a mark. Its
    /// nodes count as used now.
    pub fn find(&mut self, root: &R, tokens: &[u32], marked: bool) -> Found<'_, P, M> {
        let (path, len) = self.path(root, tokens, marked);
        self.clock += 1;
        for id in &path {
            if let Some(node) = self.nodes.get_mut(id) {
                node.used = self.clock;
            }
        }
        let mut left = len;
        let mut parts = Vec::with_capacity(path.len());
        let mut mark = None;
        for node in path.iter().filter_map(|id| self.nodes.get(id)) {
            let taken = left.min(node.tokens.len());
            left -= taken;
            parts.push((&node.part, taken));
            mark = node.mark.as_ref().filter(|_| taken == node.tokens.len());
        }
        Found { parts, mark, len }
    }

    /// Makes sure that `tokens` is there. `make` gives the part of a range of them; `mark` goes to
    /// their end. What was there before stays, and counts as used now.
    pub fn insert(
        &mut self,
        root: &R,
        tokens: &[u32],
        mark: Option<M>,
        mut make: impl FnMut(Range<usize>) -> Result<P, P::Error>,
    ) -> Result<(), P::Error> {
        let (path, mut at) = self.path(root, tokens, false);
        self.clock += 1;
        let mut parent = NONE;
        let mut passed = 0;
        for id in path {
            let Some(node) = self.nodes.get_mut(&id) else {
                continue;
            };
            node.used = self.clock;
            let len = node.tokens.len();
            if passed + len > at {
                self.split(root, id, at - passed)?;
            }
            passed += len;
            parent = id;
        }
        while at < tokens.len() {
            let end = tokens.len().min(at + NODE_TOKENS);
            let node = Node {
                parent,
                tokens: tokens[at..end].to_vec(),
                part: make(at..end)?,
                mark: None,
                children: HashMap::new(),
                used: self.clock,
            };
            self.bytes += node.nbytes();
            let id = self.next;
            self.next += 1;
            self.children(root, parent).insert(tokens[at], id);
            self.nodes.insert(id, node);
            parent = id;
            at = end;
        }
        if let (Some(mark), Some(node)) = (mark, self.nodes.get_mut(&parent)) {
            let more = mark.nbytes();
            let less = node.mark.replace(mark).map_or(0, |old| old.nbytes());
            self.bytes = self.bytes + more - less;
        }
        Ok(())
    }

    /// Lets go of the least recently used leaves until no more than `bytes` are held; how many.
    pub fn shrink(&mut self, bytes: u64) -> usize {
        let mut gone = 0;
        while self.bytes > bytes {
            let leaves = self
                .nodes
                .iter()
                .filter(|(_, node)| node.children.is_empty());
            // Of a path used at one time the deeper node was made later.
            let oldest = leaves.min_by_key(|&(id, node)| (node.used, std::cmp::Reverse(*id)));
            let Some(id) = oldest.map(|(&id, _)| id) else {
                break;
            };
            self.remove(id);
            gone += 1;
        }
        gone
    }

    fn remove(&mut self, id: Id) {
        let Some(node) = self.nodes.remove(&id) else {
            return;
        };
        self.bytes -= node.nbytes();
        let first = node.tokens.first();
        if let (Some(parent), Some(first)) = (self.nodes.get_mut(&node.parent), first) {
            parent.children.remove(first);
        } else {
            self.roots.retain(|_, children| {
                children.retain(|_, child| *child != id);
                !children.is_empty()
            });
        }
    }

    /// The nodes that `tokens` passes, and how many tokens of it they hold.
    fn path(&self, root: &R, tokens: &[u32], marked: bool) -> (Vec<Id>, usize) {
        let (mut path, mut len) = (Vec::new(), 0);
        let (mut nodes_to_mark, mut len_to_mark) = (0, 0);
        let mut children = self.roots.get(root);
        while let Some(rest) = tokens.get(len..)
            && let Some(first) = rest.first()
            && let Some(&id) = children.and_then(|children| children.get(first))
            && let Some(node) = self.nodes.get(&id)
        {
            let same = node.tokens.iter().zip(rest).take_while(|(a, b)| a == b);
            let same = same.count();
            path.push(id);
            len += same;
            if same < node.tokens.len() {
                break;
            }
            if node.mark.is_some() {
                (nodes_to_mark, len_to_mark) = (path.len(), len);
            }
            children = Some(&node.children);
        }
        if marked {
            path.truncate(nodes_to_mark);
            len = len_to_mark;
        }
        (path, len)
    }

    /// Cuts a node in two; the first half keeps its id.
    fn split(&mut self, root: &R, id: Id, at: usize) -> Result<(), P::Error> {
        let Some(node) = self.nodes.get_mut(&id) else {
            return Ok(());
        };
        let (part, rest) = node.part.split(at)?;
        self.bytes -= node.nbytes();
        let lower = Node {
            parent: id,
            tokens: node.tokens.split_off(at),
            part: rest,
            mark: node.mark.take(),
            children: std::mem::take(&mut node.children),
            used: node.used,
        };
        node.part = part;
        self.bytes += node.nbytes() + lower.nbytes();
        let lower_id = self.next;
        self.next += 1;
        for child in lower.children.values() {
            if let Some(child) = self.nodes.get_mut(child) {
                child.parent = lower_id;
            }
        }
        if let Some(&first) = lower.tokens.first() {
            self.children(root, id).insert(first, lower_id);
        }
        self.nodes.insert(lower_id, lower);
        Ok(())
    }

    fn children(&mut self, root: &R, parent: Id) -> &mut HashMap<u32, Id> {
        match self.nodes.get_mut(&parent) {
            Some(node) => &mut node.children,
            None => self.roots.entry(root.clone()).or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// The state of a token is the token.
    impl Part for Vec<u32> {
        type Error = Infallible;

        fn split(&self, at: usize) -> Result<(Self, Self), Infallible> {
            Ok((self[..at].to_vec(), self[at..].to_vec()))
        }

        fn nbytes(&self) -> u64 {
            100 * self.len() as u64
        }
    }

    impl Mark for String {
        fn nbytes(&self) -> u64 {
            1000
        }
    }

    type TestTree = Tree<u8, Vec<u32>, String>;

    fn put(tree: &mut TestTree, root: u8, tokens: &[u32], mark: Option<&str>) -> usize {
        let mut made = 0;
        let make = |range: Range<usize>| {
            made += range.len();
            Ok(tokens[range].to_vec())
        };
        let Ok(()) = tree.insert(&root, tokens, mark.map(str::to_owned), make);
        made
    }

    /// What the tree gives for `tokens`: the state of their beginning.
    fn get(tree: &mut TestTree, root: u8, tokens: &[u32]) -> Vec<u32> {
        let found = tree.find(&root, tokens, false);
        let parts = found.parts.iter();
        let state: Vec<u32> = parts
            .flat_map(|(part, taken)| &part[..*taken])
            .copied()
            .collect();
        assert_eq!(state.len(), found.len);
        state
    }

    fn count(tree: &TestTree) -> u64 {
        tree.nodes.values().map(Node::nbytes).sum()
    }

    #[test]
    fn the_longest_common_beginning_is_found() {
        let mut tree = TestTree::new();
        assert_eq!(put(&mut tree, 0, &[1, 2, 3, 4], None), 4);
        assert_eq!(get(&mut tree, 0, &[1, 2, 9]), [1, 2]);
        assert_eq!(get(&mut tree, 0, &[1, 2, 3, 4, 5]), [1, 2, 3, 4]);
        assert!(get(&mut tree, 0, &[2]).is_empty());
        assert!(get(&mut tree, 0, &[]).is_empty());
    }

    #[test]
    fn what_two_sequences_share_is_held_once() {
        let mut tree = TestTree::new();
        put(&mut tree, 0, &[1, 2, 3, 4], None);
        assert_eq!(put(&mut tree, 0, &[1, 2, 5], None), 1);
        assert_eq!(put(&mut tree, 0, &[1, 2], None), 0);
        assert_eq!(tree.nodes.len(), 3);
        assert_eq!(tree.bytes(), 5 * 104);
        assert_eq!(get(&mut tree, 0, &[1, 2, 3, 4]), [1, 2, 3, 4]);
        assert_eq!(get(&mut tree, 0, &[1, 2, 5]), [1, 2, 5]);
    }

    #[test]
    fn roots_share_nothing() {
        let mut tree = TestTree::new();
        put(&mut tree, 0, &[1, 2], None);
        assert!(get(&mut tree, 1, &[1, 2]).is_empty());
        put(&mut tree, 1, &[1, 2], None);
        assert_eq!(tree.nodes.len(), 2);
    }

    #[test]
    fn a_mark_belongs_to_one_position() {
        let mut tree = TestTree::new();
        put(&mut tree, 0, &[1, 2], Some("two"));
        put(&mut tree, 0, &[1, 2, 3, 4], Some("four"));
        put(&mut tree, 0, &[1, 2, 3, 5], None);
        for (tokens, len, mark) in [
            (&[1, 2, 3, 4, 9][..], 4, Some("four")),
            (&[1, 2, 3, 9], 2, Some("two")),
            (&[1, 2, 3, 5], 2, Some("two")),
            (&[1, 9], 0, None),
        ] {
            let found = tree.find(&0, tokens, true);
            assert_eq!((found.len, found.mark.map(String::as_str)), (len, mark));
        }
        // Without the wish for one, a mark is told only where it is.
        assert_eq!(tree.find(&0, &[1, 2, 3], false).mark, None);
        assert_eq!(tree.known(&0, &[1, 2, 3, 9], true), 2);
    }

    #[test]
    fn the_least_recently_used_leaf_goes_first() {
        let mut tree = TestTree::new();
        put(&mut tree, 0, &[1, 2, 3], None);
        put(&mut tree, 0, &[1, 2, 4], None);
        put(&mut tree, 0, &[7, 8], None);
        get(&mut tree, 0, &[1, 2, 3]);
        assert_eq!(tree.shrink(5 * 104), 1);
        assert_eq!(get(&mut tree, 0, &[1, 2, 4]), [1, 2]);
        assert_eq!(tree.shrink(3 * 104), 1);
        assert!(get(&mut tree, 0, &[7, 8]).is_empty());
        tree.shrink(0);
        assert_eq!((tree.nodes.len(), tree.bytes()), (0, 0));
        assert!(tree.roots.is_empty());
    }

    #[test]
    fn a_long_sequence_is_cut_and_loses_its_end_first() {
        let mut tree = TestTree::new();
        let tokens: Vec<u32> = (0..600).collect();
        put(&mut tree, 0, &tokens, None);
        assert_eq!(tree.nodes.len(), 3);
        tree.shrink(tree.bytes() - 1);
        assert_eq!(get(&mut tree, 0, &tokens).len(), 512);
    }

    proptest! {
        #[test]
        fn it_knows_what_a_list_of_sequences_would(
            steps in prop::collection::vec(
                (0u8..2, prop::collection::vec(0u32..3, 1..12), any::<bool>(), prop::option::of(0u64..3000)),
                1..40,
            ),
        ) {
            let mut tree = TestTree::new();
            let mut all: Vec<(u8, Vec<u32>)> = Vec::new();
            let mut complete = true;
            for (root, tokens, mark, shrink) in steps {
                let common = |all: &[(u8, Vec<u32>)]| {
                    all.iter()
                        .filter(|(other, _)| *other == root)
                        .map(|(_, known)| known.iter().zip(&tokens).take_while(|(a, b)| a == b).count())
                        .max()
                        .unwrap_or(0)
                };
                let known = tree.known(&root, &tokens, false);
                prop_assert_eq!(&get(&mut tree, root, &tokens)[..], &tokens[..known]);
                prop_assert!(known <= common(&all));
                if complete {
                    prop_assert_eq!(known, common(&all));
                }
                put(&mut tree, root, &tokens, mark.then_some("here"));
                prop_assert_eq!(tree.known(&root, &tokens, false), tokens.len());
                if mark {
                    prop_assert_eq!(tree.known(&root, &tokens, true), tokens.len());
                }
                all.push((root, tokens));
                if let Some(bytes) = shrink {
                    complete = false;
                    tree.shrink(bytes);
                    prop_assert!(tree.bytes() <= bytes);
                }
                prop_assert_eq!(tree.bytes(), count(&tree));
            }
        }
    }
}
