//! Path templates of `google.api.http`: parsing them, and finding the one that a path matches.
//!
//! Templates are kept in a tree by segment. At every segment a literal wins over `*`, and `*` over
//! `**`; a template with a verb wins over one without. A search visits a node at most once, so it
//! costs no more than the tree is large, whatever the path.

use std::collections::HashMap;

use crate::words::limits;

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    pub segments: Vec<Segment>,
    pub verb: Option<String>,
    pub variables: Vec<Variable>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    Literal(String),
    /// `*`: one segment.
    One,
    /// `**`: all that are left; always the last.
    Rest,
}

/// Which segments a field takes its value from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Dotted, as written.
    pub field: String,
    pub start: usize,
    /// None: to the end of the path.
    pub end: Option<usize>,
    /// `{f}` and `{f=*}` are decoded wholly; values of other shapes keep `%2F`.
    pub single: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path template {template:?}: {reason}")]
pub struct TemplateError {
    pub template: String,
    pub reason: &'static str,
}

impl Template {
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let fail = |reason| TemplateError { template: text.into(), reason };
        let rest = text.strip_prefix('/').ok_or_else(|| fail("must begin with /"))?;
        let mut template = Self { segments: Vec::new(), verb: None, variables: Vec::new() };
        let mut rest = rest;
        loop {
            rest = match rest.strip_prefix('{') {
                Some(inside) => {
                    let close = inside.find('}').ok_or_else(|| fail("{ without }"))?;
                    template.variable(&inside[..close]).map_err(fail)?;
                    &inside[close + 1..]
                }
                None => {
                    let end = rest.find(['/', ':']).unwrap_or(rest.len());
                    template.segment(&rest[..end]).map_err(fail)?;
                    &rest[end..]
                }
            };
            if let Some(next) = rest.strip_prefix('/') {
                rest = next;
            } else if let Some(verb) = rest.strip_prefix(':') {
                if verb.is_empty() || verb.contains(['/', '{', '}', ':', '*']) {
                    return Err(fail("the verb after : must be a literal at the end"));
                }
                template.verb = Some(verb.into());
                break;
            } else if rest.is_empty() {
                break;
            } else {
                return Err(fail("a } must be followed by /, : or the end"));
            }
        }
        if template.segments.len() > limits::TEMPLATE_SEGMENTS_MAX {
            return Err(fail("has too many segments"));
        }
        Ok(template)
    }

    fn segment(&mut self, text: &str) -> Result<(), &'static str> {
        if self.segments.last() == Some(&Segment::Rest) {
            return Err("** must be the last segment");
        }
        self.segments.push(match text {
            "" => return Err("has an empty segment"),
            "*" => Segment::One,
            "**" => Segment::Rest,
            text if text.contains(['{', '}', '*']) => {
                return Err("a segment is a literal, *, ** or a variable, not a mixture");
            }
            text => Segment::Literal(text.into()),
        });
        Ok(())
    }

    fn variable(&mut self, inside: &str) -> Result<(), &'static str> {
        let (field, pattern) = inside.split_once('=').unwrap_or((inside, "*"));
        if field.is_empty() || field.split('.').any(str::is_empty) {
            return Err("a variable must name a field");
        }
        if self.variables.iter().any(|variable| variable.field == field) {
            return Err("two variables name the same field");
        }
        let start = self.segments.len();
        for segment in pattern.split('/') {
            self.segment(segment)?;
        }
        let open = self.segments.last() == Some(&Segment::Rest);
        self.variables.push(Variable {
            field: field.into(),
            start,
            end: (!open).then_some(self.segments.len()),
            single: pattern == "*",
        });
        Ok(())
    }
}

/// Templates by what they match. `T` is what stands at the end of one.
#[derive(Debug)]
pub struct Tree<T> {
    literals: HashMap<Box<str>, Tree<T>>,
    one: Option<Box<Tree<T>>>,
    rest: Vec<Leaf<T>>,
    ends: Vec<Leaf<T>>,
}

#[derive(Debug)]
struct Leaf<T> {
    verb: Option<Box<str>>,
    /// `*`: every HTTP method.
    method: Box<str>,
    value: T,
}

impl<T> Default for Tree<T> {
    fn default() -> Self {
        Self { literals: HashMap::new(), one: None, rest: Vec::new(), ends: Vec::new() }
    }
}

impl<T> Tree<T> {
    pub fn is_empty(&self) -> bool {
        self.literals.is_empty()
            && self.one.is_none()
            && self.rest.is_empty()
            && self.ends.is_empty()
    }

    /// False, and nothing changed, if an equal template for the same method is there already.
    pub fn insert(&mut self, method: &str, template: &Template, value: T) -> Result<(), &T> {
        let mut node = self;
        let mut rest = false;
        for segment in &template.segments {
            match segment {
                Segment::Literal(text) => {
                    node = node.literals.entry(text.as_str().into()).or_default();
                }
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest => rest = true,
            }
        }
        let leaves = if rest { &mut node.rest } else { &mut node.ends };
        let verb = template.verb.as_deref();
        let same = |leaf: &Leaf<T>| leaf.verb.as_deref() == verb && &*leaf.method == method;
        if let Some(at) = leaves.iter().position(same) {
            return Err(&leaves[at].value);
        }
        leaves.push(Leaf { verb: verb.map(Into::into), method: method.into(), value });
        Ok(())
    }

    /// The best template for a path that was split at `/`.
    pub fn find(&self, method: &str, segments: &[&str]) -> Option<&T> {
        let mut found = None;
        self.search(segments, &mut |leaf| {
            if &*leaf.method == method || &*leaf.method == "*" {
                found = Some(&leaf.value);
            }
            found.is_some()
        });
        found
    }

    /// The HTTP methods that some template for this path has.
    pub fn methods(&self, segments: &[&str]) -> Vec<&str> {
        let mut methods = Vec::new();
        self.search(segments, &mut |leaf| {
            methods.push(&*leaf.method);
            false
        });
        methods.sort_unstable();
        methods.dedup();
        methods
    }

    fn search<'a>(&'a self, segments: &[&str], take: &mut dyn FnMut(&'a Leaf<T>) -> bool) {
        if let Some((last, before)) = segments.split_last()
            && let Some((stem, verb)) = last.rsplit_once(':')
        {
            let mut with_verb = Vec::with_capacity(segments.len());
            with_verb.extend_from_slice(before);
            with_verb.push(stem);
            if self.walk(&with_verb, Some(verb), take) {
                return;
            }
        }
        self.walk(segments, None, take);
    }

    fn walk<'a>(
        &'a self,
        segments: &[&str],
        verb: Option<&str>,
        take: &mut dyn FnMut(&'a Leaf<T>) -> bool,
    ) -> bool {
        let leaves = |leaves: &'a [Leaf<T>], take: &mut dyn FnMut(&'a Leaf<T>) -> bool| {
            leaves.iter().any(|leaf| leaf.verb.as_deref() == verb && take(leaf))
        };
        let Some((segment, later)) = segments.split_first() else {
            return leaves(&self.ends, take) || leaves(&self.rest, take);
        };
        if !self.literals.is_empty() {
            let literal = match segment.contains('%') {
                false => self.literals.get(*segment),
                true => decode(segment).ok().and_then(|text| self.literals.get(text.as_str())),
            };
            if let Some(node) = literal
                && node.walk(later, verb, take)
            {
                return true;
            }
        }
        if let Some(node) = &self.one
            && !segment.is_empty()
            && node.walk(later, verb, take)
        {
            return true;
        }
        leaves(&self.rest, take)
    }
}

/// The value of a variable in a path that its template matched.
pub fn value(
    variable: &Variable,
    segments: &[&str],
    verb: Option<&str>,
) -> Result<String, &'static str> {
    let end = variable.end.unwrap_or(segments.len()).min(segments.len());
    let mut text = String::new();
    for (at, segment) in segments.iter().enumerate().take(end).skip(variable.start) {
        let mut segment = *segment;
        if at + 1 == segments.len()
            && let Some(verb) = verb
        {
            segment =
                segment.strip_suffix(verb).and_then(|s| s.strip_suffix(':')).unwrap_or(segment);
        }
        if variable.single {
            return decode(segment);
        }
        if at > variable.start {
            text.push('/');
        }
        text.push_str(&decode_but_slashes(segment)?);
    }
    Ok(text)
}

/// Percent-decodes strictly: `%` must be followed by two hexadecimal digits, and the result must be
/// UTF-8.
pub fn decode(text: &str) -> Result<String, &'static str> {
    if !text.contains('%') {
        return Ok(text.into());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, later)) = rest.split_first() {
        rest = later;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut decoded = [0];
        let digits = rest.get(..2).ok_or("% must be followed by two hexadecimal digits")?;
        hex::decode_to_slice(digits, &mut decoded)
            .map_err(|_| "% must be followed by two hexadecimal digits")?;
        bytes.push(decoded[0]);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 after percent-decoding")
}

/// As `decode`, but an encoded slash stays encoded, so that it cannot be taken for a separator.
fn decode_but_slashes(text: &str) -> Result<String, &'static str> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = ["%2F", "%2f"].iter().filter_map(|slash| rest.find(slash)).min() {
        out.push_str(&decode(&rest[..at])?);
        out.push_str(&rest[at..at + 3]);
        rest = &rest[at + 3..];
    }
    out.push_str(&decode(rest)?);
    Ok(out)
}
