//! Escapes and classes in brackets.

use regex_syntax::hir::{ClassUnicode, Hir, Look};

use super::{CLASS_RANGE_COUNT_MAX, Item, Parser, class};

impl<'a> Parser<'a> {
    /// Reads an escape outside of classes.
    pub(super) fn escape(&mut self) -> Result<(), String> {
        let look = match self.rest.as_bytes().get(1) {
            Some(b'A') => Look::Start,
            Some(b'z') => Look::End,
            Some(b'b') => Look::WordAscii,
            Some(b'B') => Look::WordAsciiNegate,
            Some(b'Q') => {
                self.skip(2);
                let (text, rest) = self.rest.split_once(r"\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                return text.chars().try_for_each(|c| self.literal(u32::from(c)));
            }
            _ => {
                if let Some(set) = self.named_class()? {
                    return self.class(set);
                }
                let code_point = self.escaped_char()?;
                return self.literal(code_point);
            }
        };
        self.skip(2);
        self.push(Item::leaf(Hir::look(look)))
    }

    /// Reads `\d`, `\pL`, `\p{Greek}` and the like; `None`, with nothing read, for other escapes.
    fn named_class(&mut self) -> Result<Option<ClassUnicode>, String> {
        let before = self.rest;
        let Some(&letter) = before.as_bytes().get(1).filter(|_| before.starts_with('\\')) else {
            return Ok(None);
        };
        let letter = char::from(letter);
        let mut negate = letter.is_ascii_uppercase();
        let mut set = match letter {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => {
                self.skip(2);
                class::perl(letter.to_ascii_lowercase()).map(|set| self.folded(set))
            }
            'p' | 'P' => {
                self.skip(2);
                let name = match self.rest.chars().next() {
                    Some('{') => {
                        let Some((name, rest)) = self.rest.get(1..).and_then(|text| text.split_once('}'))
                        else {
                            return Err(format!("invalid character class range {before:?}"));
                        };
                        self.rest = rest;
                        name
                    }
                    Some(c) => {
                        let name = self.rest.get(..c.len_utf8()).unwrap_or_default();
                        self.skip(c.len_utf8());
                        name
                    }
                    None => "",
                };
                let plain = name.strip_prefix('^');
                negate ^= plain.is_some();
                self.unicode_table(plain.unwrap_or(name))
            }
            _ => return Ok(None),
        }
        .ok_or_else(|| format!("invalid character class range {:?}", self.read_since(before)))?;
        if negate {
            class::negate(&mut set);
        }
        Ok(Some(set))
    }

    /// A Unicode class by name, folded if flag `i` is set.
    fn unicode_table(&mut self, name: &str) -> Option<ClassUnicode> {
        let key = (name.to_owned(), self.flags.fold);
        if let Some(set) = self.tables.get(&key) {
            return Some(set.clone());
        }
        let set = class::unicode(name).map(|set| self.folded(set))?;
        self.tables.insert(key, set.clone());
        Some(set)
    }

    fn folded(&self, mut set: ClassUnicode) -> ClassUnicode {
        if self.flags.fold {
            class::fold(&mut set);
        }
        set
    }

    /// Reads an escape that stands for one code point.
    fn escaped_char(&mut self) -> Result<u32, String> {
        let before = self.rest;
        self.skip(1);
        let Some(c) = self.rest.chars().next() else {
            return Err("trailing backslash at end of expression".to_owned());
        };
        self.skip(c.len_utf8());
        let value = match c {
            'a' => Some(0x07),
            'f' => Some(0x0C),
            'n' => Some(0x0A),
            'r' => Some(0x0D),
            't' => Some(0x09),
            'v' => Some(0x0B),
            'x' => self.hex(),
            '0'..='7' => self.octal(c),
            _ if c.is_ascii() && !c.is_ascii_alphanumeric() => Some(u32::from(c)),
            _ => None,
        };
        value.ok_or_else(|| format!("invalid escape sequence {:?}", self.read_since(before)))
    }

    /// Reads an octal escape after its first digit. A digit that is alone, unless 0, would be a
    /// back reference and is refused.
    fn octal(&mut self, first: char) -> Option<u32> {
        let mut value = first.to_digit(8)?;
        let mut digit_count = 1;
        while digit_count < 3
            && let Some(digit) = self.rest.chars().next().and_then(|c| c.to_digit(8))
        {
            self.skip(1);
            value = value * 8 + digit;
            digit_count += 1;
        }
        (digit_count > 1 || first == '0').then_some(value)
    }

    /// Reads a hexadecimal escape after its `x`: two digits, or any number of them in braces.
    fn hex(&mut self) -> Option<u32> {
        if let Some(text) = self.rest.strip_prefix('{') {
            let (digits, rest) = text.split_once('}')?;
            let value = digits.chars().try_fold(0u32, |value, c| {
                let value = value * 16 + c.to_digit(16)?;
                (value <= 0x10_FFFF).then_some(value)
            });
            self.rest = rest;
            return value.filter(|_| !digits.is_empty());
        }
        let mut chars = self.rest.chars();
        let (high, low) = (chars.next()?.to_digit(16)?, chars.next()?.to_digit(16)?);
        self.skip(2);
        Some(high * 16 + low)
    }

    /// Reads a class in brackets.
    pub(super) fn bracket_class(&mut self) -> Result<(), String> {
        let before = self.rest;
        self.skip(1);
        let negate = self.rest.starts_with('^');
        if negate {
            self.skip(1);
        }
        let mut parts: Vec<ClassUnicode> = Vec::new();
        let mut first = true;
        // A `]` is an ordinary character in the first place.
        while first || !self.rest.starts_with(']') {
            first = false;
            let part = if let Some(part) = self.posix_class()? {
                part
            } else if let Some(part) = self.named_class()? {
                part
            } else {
                self.class_range(before)?
            };
            self.class_range_count += part.ranges().len();
            if self.class_range_count > CLASS_RANGE_COUNT_MAX {
                return Err("expression too large: too many ranges in classes".to_owned());
            }
            parts.push(part);
        }
        self.skip(1);
        // One sort at the end; a union per part would sort again for each.
        let mut set = ClassUnicode::new(parts.iter().flat_map(|part| part.iter().copied()));
        if negate {
            class::negate(&mut set);
        }
        self.class(set)
    }

    /// Reads `[:name:]` inside a class; `None`, with nothing read, if there is none.
    fn posix_class(&mut self) -> Result<Option<ClassUnicode>, String> {
        let Some(text) = self.rest.strip_prefix("[:").filter(|_| !self.no_more_posix_ends) else {
            return Ok(None);
        };
        let Some((name, rest)) = text.split_once(":]") else {
            self.no_more_posix_ends = true;
            return Ok(None);
        };
        let plain = name.strip_prefix('^');
        let Some(set) = class::posix(plain.unwrap_or(name)) else {
            return Err(format!("invalid character class range {:?}", format!("[:{name}:]")));
        };
        self.rest = rest;
        let mut set = self.folded(set);
        if plain.is_some() {
            class::negate(&mut set);
        }
        Ok(Some(set))
    }

    /// Reads a character or a range of a class. There is no other syntax: `&&`, `--`, `~~` and an
    /// inner `[` are characters.
    fn class_range(&mut self, class_text: &'a str) -> Result<ClassUnicode, String> {
        let before = self.rest;
        let lo = self.class_char(class_text)?;
        let mut hi = lo;
        if self.rest.len() >= 2 && self.rest.starts_with('-') && !self.rest.starts_with("-]") {
            self.skip(1);
            hi = self.class_char(class_text)?;
            if hi < lo {
                return Err(format!("invalid character class range {:?}", self.read_since(before)));
            }
        }
        Ok(self.folded(class::of_code_points(lo, hi)))
    }

    fn class_char(&mut self, class_text: &'a str) -> Result<u32, String> {
        match self.rest.chars().next() {
            None => Err(format!("missing closing ] in {class_text:?}")),
            Some('\\') => self.escaped_char(),
            Some(c) => {
                self.skip(c.len_utf8());
                Ok(u32::from(c))
            }
        }
    }
}
