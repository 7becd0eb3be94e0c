//! Go's regular expression grammar, read into the intermediate form of the Rust engine.
//!
//! The Rust crate reads a language that differs from Go's in many small places: its `\d`, `\w` and
//! `\b` know Unicode, its classes nest and have set operations, `x{,2}` and `a**` mean something,
//! `\Q…\E`, octal escapes and `\pl` do not. A rewritten pattern text would have to get each of
//! these right in the other language's words. So this module reads the pattern itself, by the
//! rules of Go's `regexp/syntax` with its Perl flags, and builds [`Hir`] nodes, whose meaning is
//! exact: sets of code points, assertions, repetitions. What is left to the crate is the automaton.
//!
//! Only whether a whole value matches is ever asked. So groups capture nothing, lazy and greedy
//! repetition are the same, and both are read and forgotten.
//!
//! The parser keeps its own stack, so a pattern cannot exhaust that of the thread; how deep the
//! result may nest is limited for those who walk it, and so are pattern, nodes and class ranges.

use std::collections::HashMap;

use regex_syntax::hir::{Class, ClassUnicode, Dot, Hir, Look, Repetition};

use super::class;

mod escape;

/// Longest pattern in bytes. Dashboards do send alternations of thousands of names.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Most nodes that are not literal text.
const NODE_COUNT_MAX: usize = 200_000;
/// Most ranges in all classes together, at 8 bytes each. `\pL` has 660.
const CLASS_RANGE_COUNT_MAX: usize = 2_000_000;
/// Most groups inside one another. Go's limit is a height of 1000 of the tree.
const GROUP_DEPTH_MAX: usize = 1000;
/// Greatest height of the result, which the engine's compiler walks by recursion.
const HEIGHT_MAX: usize = 1000;
/// Greatest repeat count, and greatest product of nested ones. As in Go.
const REPEAT_MAX: u32 = 1000;

/// Reads `pattern` with `.` matching newlines. The error says what is wrong, and where it helps
/// quotes the place.
pub(super) fn parse(pattern: &str) -> Result<Hir, String> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(format!("longer than {PATTERN_BYTES_MAX} bytes"));
    }
    Parser {
        rest: pattern,
        flags: Flags { fold: false, multi_line: false, dot_all: true },
        group: Group::default(),
        outer: Vec::new(),
        node_count: 0,
        class_range_count: 0,
        tables: HashMap::new(),
        no_more_posix_ends: false,
    }
    .run()
}

#[derive(Clone, Copy, Debug, Default)]
struct Flags {
    /// `i`
    fold: bool,
    /// `m`: `^` and `$` match at lines too.
    multi_line: bool,
    /// `s`: `.` matches newlines.
    dot_all: bool,
}

/// A part of the expression that is complete and may be repeated.
#[derive(Debug)]
struct Item {
    hir: Hir,
    /// Nodes above one another.
    height: usize,
    /// The greatest product of nested counted repetitions.
    copies: u32,
}

impl Item {
    fn leaf(hir: Hir) -> Self {
        Self { hir, height: 1, copies: 1 }
    }
}

/// An open group, or the whole expression.
#[derive(Debug, Default)]
struct Group {
    /// Finished branches of the alternation.
    branches: Vec<Item>,
    /// The branch being read, up to `text`.
    items: Vec<Item>,
    /// Literal text at the end of the branch.
    text: String,
    /// Flags to go back to when the group ends.
    flags: Flags,
}

struct Parser<'a> {
    rest: &'a str,
    flags: Flags,
    group: Group,
    outer: Vec<Group>,
    node_count: usize,
    class_range_count: usize,
    /// Unicode classes met so far, by name and flag `i`.
    tables: HashMap<(String, bool), ClassUnicode>,
    /// The rest holds no `:]`, so it need not be searched again.
    no_more_posix_ends: bool,
}

impl<'a> Parser<'a> {
    fn run(mut self) -> Result<Hir, String> {
        // A repetition of a repetition is refused if its operator follows at once.
        let mut after_repetition = false;
        while let Some(c) = self.rest.chars().next() {
            let before = self.rest;
            let mut is_repetition = false;
            match c {
                '(' if before.starts_with("(?") => self.perl_group()?,
                '(' => {
                    self.skip(1);
                    self.open(self.flags)?;
                }
                ')' => {
                    self.skip(1);
                    self.close()?;
                }
                '|' => {
                    self.skip(1);
                    self.end_branch();
                }
                '^' | '$' => {
                    self.skip(1);
                    let look = match (c, self.flags.multi_line) {
                        ('^', false) => Look::Start,
                        ('^', true) => Look::StartLF,
                        (_, false) => Look::End,
                        (_, true) => Look::EndLF,
                    };
                    self.push(Item::leaf(Hir::look(look)))?;
                }
                '.' => {
                    self.skip(1);
                    let dot = if self.flags.dot_all { Dot::AnyChar } else { Dot::AnyCharExceptLF };
                    self.push(Item::leaf(Hir::dot(dot)))?;
                }
                '[' => self.bracket_class()?,
                '*' | '+' | '?' => {
                    self.skip(1);
                    let (min, max) = match c {
                        '*' => (0, None),
                        '+' => (1, None),
                        _ => (0, Some(1)),
                    };
                    self.repeat(min, max, false, after_repetition, before)?;
                    is_repetition = true;
                }
                '{' => match self.repeat_counts()? {
                    Some((min, max)) => {
                        self.repeat(min, max, true, after_repetition, before)?;
                        is_repetition = true;
                    }
                    None => {
                        self.skip(1);
                        self.literal(u32::from('{'))?;
                    }
                },
                '\\' => self.escape()?,
                _ => {
                    self.skip(c.len_utf8());
                    self.literal(u32::from(c))?;
                }
            }
            after_repetition = is_repetition;
        }
        if !self.outer.is_empty() {
            return Err("missing closing )".to_owned());
        }
        Ok(self.end_group().hir)
    }

    /// Drops `len` bytes of the rest. They were looked at, so the cut is at a character.
    fn skip(&mut self, len: usize) {
        self.rest = self.rest.get(len..).unwrap_or_default();
    }

    /// What of `before` was read since.
    fn read_since(&self, before: &'a str) -> &'a str {
        before.get(..before.len() - self.rest.len()).unwrap_or(before)
    }

    // Building.

    fn count_node(&mut self) -> Result<(), String> {
        self.node_count += 1;
        if self.node_count > NODE_COUNT_MAX {
            return Err(format!("expression too large: more than {NODE_COUNT_MAX} nodes"));
        }
        Ok(())
    }

    fn push(&mut self, item: Item) -> Result<(), String> {
        self.count_node()?;
        self.flush_text();
        self.group.items.push(item);
        Ok(())
    }

    fn flush_text(&mut self) {
        if !self.group.text.is_empty() {
            let text = std::mem::take(&mut self.group.text);
            self.group.items.push(Item::leaf(Hir::literal(text.into_bytes())));
        }
    }

    fn class(&mut self, class: ClassUnicode) -> Result<(), String> {
        self.class_range_count += class.ranges().len();
        if self.class_range_count > CLASS_RANGE_COUNT_MAX {
            return Err("expression too large: too many ranges in classes".to_owned());
        }
        self.push(Item::leaf(Hir::class(Class::Unicode(class))))
    }

    /// Adds one code point, which may be a surrogate.
    fn literal(&mut self, code_point: u32) -> Result<(), String> {
        match char::from_u32(code_point) {
            Some(c) if !self.flags.fold || (c.is_ascii() && !c.is_ascii_alphabetic()) => {
                self.group.text.push(c);
                Ok(())
            }
            _ => {
                let mut set = class::of_code_points(code_point, code_point);
                class::fold(&mut set);
                match set.ranges() {
                    [one] if one.start() == one.end() => {
                        self.group.text.push(one.start());
                        Ok(())
                    }
                    _ => self.class(set),
                }
            }
        }
    }

    fn open(&mut self, restore: Flags) -> Result<(), String> {
        if self.outer.len() >= GROUP_DEPTH_MAX {
            return Err("expression nests too deeply".to_owned());
        }
        self.count_node()?;
        self.flush_text();
        let inner = Group { flags: restore, ..Group::default() };
        self.outer.push(std::mem::replace(&mut self.group, inner));
        Ok(())
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(outer) = self.outer.pop() else {
            return Err("unexpected )".to_owned());
        };
        self.flags = self.group.flags;
        let item = self.end_group();
        if item.height > HEIGHT_MAX {
            return Err("expression nests too deeply".to_owned());
        }
        self.group = outer;
        self.push(item)
    }

    fn end_branch(&mut self) {
        self.flush_text();
        let mut items = std::mem::take(&mut self.group.items);
        let branch = match items.len() {
            1 => items.remove(0),
            _ => combine(items, Hir::concat),
        };
        self.group.branches.push(branch);
    }

    fn end_group(&mut self) -> Item {
        self.end_branch();
        let mut branches = std::mem::take(&mut self.group.branches);
        match branches.len() {
            1 => branches.remove(0),
            _ => combine(branches, Hir::alternation),
        }
    }

    // Repetition.

    fn repeat(
        &mut self,
        min: u32,
        max: Option<u32>,
        counted: bool,
        after_repetition: bool,
        before: &'a str,
    ) -> Result<(), String> {
        if self.rest.starts_with('?') {
            self.skip(1);
        }
        let operator = self.read_since(before);
        if after_repetition {
            return Err(format!("invalid nested repetition operator {operator:?}"));
        }
        let sub = match self.group.text.pop() {
            Some(c) => {
                self.flush_text();
                Item::leaf(Hir::literal(c.to_string().into_bytes()))
            }
            None => match self.group.items.pop() {
                Some(item) => item,
                None => return Err(format!("missing argument to repetition operator {operator:?}")),
            },
        };
        let mut copies = sub.copies;
        if counted {
            // `x{0}` hides what repeats inside it; an open end counts by its minimum.
            copies = match max {
                Some(0) => 1,
                _ => sub.copies.saturating_mul(max.unwrap_or(min).max(1)),
            };
            if (min >= 2 || max.is_some_and(|max| max >= 2)) && copies > REPEAT_MAX {
                return Err(format!(
                    "invalid repeat count {operator:?}: nested counts multiply to more than {REPEAT_MAX}"
                ));
            }
        }
        let height = sub.height + 1;
        if height > HEIGHT_MAX {
            return Err("expression nests too deeply".to_owned());
        }
        let hir = Hir::repetition(Repetition { min, max, greedy: true, sub: Box::new(sub.hir) });
        self.push(Item { hir, height, copies })
    }

    /// Reads `{n}`, `{n,}` or `{n,m}`. `None`, with nothing read, if the brace is literal text.
    fn repeat_counts(&mut self) -> Result<Option<(u32, Option<u32>)>, String> {
        // Looks no further than it must: a pattern full of braces is read in linear time.
        let text = self.rest.get(1..).unwrap_or_default();
        let end = text.bytes().position(|b| !(b.is_ascii_digit() || b == b','));
        let Some(inside) = end.and_then(|end| text.get(..end)) else {
            return Ok(None);
        };
        if text.as_bytes().get(inside.len()) != Some(&b'}') {
            return Ok(None);
        }
        let (min, max) = match inside.split_once(',') {
            None => (inside, inside),
            Some((min, max)) => (min, max),
        };
        let is_number = |text: &str| {
            let leading_zero = text.len() > 1 && text.starts_with('0');
            !text.is_empty() && !leading_zero && text.bytes().all(|b| b.is_ascii_digit())
        };
        if !is_number(min) || !(max.is_empty() || is_number(max)) {
            return Ok(None);
        }
        // Too long for a u32 is too large in any case.
        let min: u32 = min.parse().unwrap_or(u32::MAX);
        let max: Option<u32> = if max.is_empty() { None } else { Some(max.parse().unwrap_or(u32::MAX)) };
        if min > REPEAT_MAX || max.is_some_and(|max| max > REPEAT_MAX || max < min) {
            return Err(format!("invalid repeat count \"{{{inside}}}\""));
        }
        self.skip(inside.len() + 2);
        Ok(Some((min, max)))
    }

    // Groups.

    /// Reads what begins with `(?`: a named group, flags, or flags and a group.
    fn perl_group(&mut self) -> Result<(), String> {
        let before = self.rest;
        let named = before.strip_prefix("(?P<").or_else(|| before.strip_prefix("(?<"));
        if let Some(text) = named {
            let name = text.split_once('>').map(|(name, _)| name);
            let valid = |name: &&str| {
                !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            };
            let Some(name) = name.filter(valid) else {
                return Err("invalid named capture".to_owned());
            };
            self.skip(before.len() - text.len() + name.len() + 1);
            return self.open(self.flags);
        }

        self.skip(2);
        let mut flags = self.flags;
        let mut value = true;
        // After a `-` there must be a flag.
        let mut expects_flag = false;
        while let Some(c) = self.rest.chars().next() {
            self.skip(c.len_utf8());
            match c {
                'i' => flags.fold = value,
                'm' => flags.multi_line = value,
                's' => flags.dot_all = value,
                // Greed does not change whether a whole value matches.
                'U' => {}
                '-' if value => value = false,
                ':' | ')' if !expects_flag => {
                    if c == ':' {
                        self.open(self.flags)?;
                    }
                    self.flags = flags;
                    return Ok(());
                }
                _ => break,
            }
            expects_flag = c == '-';
        }
        Err(format!("invalid or unsupported Perl syntax {:?}", self.read_since(before)))
    }
}

/// One item of several.
fn combine(items: Vec<Item>, build: fn(Vec<Hir>) -> Hir) -> Item {
    let height = 1 + items.iter().map(|item| item.height).max().unwrap_or(0);
    let copies = items.iter().map(|item| item.copies).max().unwrap_or(1);
    Item { hir: build(items.into_iter().map(|item| item.hir).collect()), height, copies }
}
