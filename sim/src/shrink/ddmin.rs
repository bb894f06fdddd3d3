//! Zeller's delta debugging: the smallest list of parts that still fails, in the sense that no single one can go.

/// Strikes out parts while `fails` holds of what is left. All parts together are known to fail.
pub(super) fn ddmin<T: Clone>(mut parts: Vec<T>, fails: &mut dyn FnMut(&[T]) -> bool) -> Vec<T> {
    if !parts.is_empty() && fails(&[]) {
        return Vec::new();
    }
    let mut pieces = 2;
    while 2 <= parts.len() {
        let size = parts.len().div_ceil(pieces);
        let reduced = (0..parts.len()).step_by(size).find_map(|begin| {
            let end = (begin + size).min(parts.len());
            let rest = [&parts[..begin], &parts[end..]].concat();
            fails(&rest).then_some(rest)
        });
        match reduced {
            Some(rest) => {
                parts = rest;
                pieces = (pieces - 1).max(2);
            }
            None if size == 1 => break,
            None => pieces = (2 * pieces).min(parts.len()),
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_that_matter_are_found() {
        for wanted in [vec![0], vec![17], vec![3, 50], vec![1, 2, 3], vec![0, 30, 31, 59]] {
            let mut tests = 0;
            let left = ddmin((0..60).collect(), &mut |kept| {
                tests += 1;
                wanted.iter().all(|part| kept.contains(part))
            });
            assert_eq!(left, wanted);
            assert!(tests < 200, "{tests} tests");
        }
        assert_eq!(ddmin(vec![1, 2], &mut |_| true), Vec::<i32>::new());
    }
}
