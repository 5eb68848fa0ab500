//! Disjoint sets of numbered things.

/// Sets of numbers, each named by its smallest. Four bytes for each number.
#[derive(Debug, Default)]
pub(super) struct UnionFind {
    parents: Vec<u32>,
}

impl UnionFind {
    /// Adds the next number as a set of its own and returns it.
    pub(super) fn add(&mut self) -> u32 {
        let number = u32::try_from(self.parents.len()).unwrap_or(u32::MAX);
        self.parents.push(number);
        number
    }

    /// The smallest number of the set. Halves the way there, so that the next is shorter.
    pub(super) fn root(&mut self, mut number: u32) -> u32 {
        loop {
            let parent = self.parents[number as usize];
            if parent == number {
                return number;
            }
            let grandparent = self.parents[parent as usize];
            self.parents[number as usize] = grandparent;
            number = grandparent;
        }
    }

    /// Makes one set of two; returns the name of the other, which is no longer one, if there were two.
    pub(super) fn join(&mut self, a: u32, b: u32) -> Option<u32> {
        let (a, b) = (self.root(a), self.root(b));
        let (root, child) = (a.min(b), a.max(b));
        self.parents[child as usize] = root;
        (root != child).then_some(child)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_joined_and_named_by_their_smallest() {
        let mut sets = UnionFind::default();
        for number in 0..6 {
            assert_eq!(sets.add(), number);
        }
        assert_eq!(sets.join(4, 5), Some(5));
        assert_eq!(sets.join(2, 5), Some(4));
        assert_eq!(sets.join(4, 2), None);
        assert_eq!((0..6).map(|n| sets.root(n)).collect::<Vec<_>>(), [0, 1, 2, 3, 2, 2]);
    }
}
