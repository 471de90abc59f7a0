//! Typed access to the keys of a JSON object, with errors that name the file and the key.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// No model comes near; products of two such sizes cannot overflow.
const MAX_SIZE: u64 = 1 << 28;

/// A JSON object of a configuration file. A key that is absent and a key that is null are the same.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    pub path: &'a Path,
    pub map: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The keys that are there, with their values.
    pub fn present(&self) -> impl Iterator<Item = (&'a str, &'a Value)> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.as_str(), value))
    }

    pub fn error(&self, why: String) -> Error {
        Error::File { path: self.path.to_owned(), why }
    }

    fn typed<T>(&self, key: &str, kind: &str, convert: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let wrong = || self.error(format!("`{key}` must be {kind}, got {value}"));
        convert(value).map(Some).ok_or_else(wrong)
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format!("`{key}` is missing")))
    }

    /// A whole number that may be 0.
    pub fn optional_count(&self, key: &str) -> Result<Option<usize>> {
        let kind = format!("a whole number of at most {MAX_SIZE}");
        let convert = |value: &Value| value.as_u64().filter(|&n| n <= MAX_SIZE).map(|n| n as usize);
        self.typed(key, &kind, convert)
    }

    /// A whole number that may be 0.
    pub fn count(&self, key: &str) -> Result<usize> {
        self.required(key, self.optional_count(key)?)
    }

    /// A whole number of at least 1.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>> {
        match self.optional_count(key)? {
            Some(0) => Err(self.error(format!("`{key}` must be at least 1, got 0"))),
            size => Ok(size),
        }
    }

    /// A whole number of at least 1.
    pub fn size(&self, key: &str) -> Result<usize> {
        self.required(key, self.optional_size(key)?)
    }

    /// A whole number of at least 1 that is `absent` without its key, and `None` if it is null.
    pub fn size_unless_null(&self, key: &str, absent: usize) -> Result<Option<usize>> {
        if self.map.contains_key(key) { self.optional_size(key) } else { Ok(Some(absent)) }
    }

    /// A finite number.
    pub fn optional_number(&self, key: &str) -> Result<Option<f64>> {
        self.typed(key, "a number", |value| value.as_f64().filter(|x| x.is_finite()))
    }

    /// A number that is greater than 0 and is so in f32 too.
    pub fn optional_positive(&self, key: &str) -> Result<Option<f64>> {
        let positive = |x: &f64| (*x as f32) > 0.0 && (*x as f32).is_finite();
        self.typed(key, "a positive number", |value| value.as_f64().filter(positive))
    }

    /// A number that is greater than 0 and is so in f32 too.
    pub fn positive(&self, key: &str) -> Result<f64> {
        self.required(key, self.optional_positive(key)?)
    }

    /// A number as for [`Self::positive`] that is `absent` without its key, and `None` if it is null.
    pub fn positive_unless_null(&self, key: &str, absent: f64) -> Result<Option<f64>> {
        if self.map.contains_key(key) { self.optional_positive(key) } else { Ok(Some(absent)) }
    }

    /// A switch; absent means off.
    pub fn flag(&self, key: &str) -> Result<bool> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(false))
    }

    /// A switch that is `absent` without its key. Unlike elsewhere, null is not absence: transformers takes it for off.
    pub fn switch(&self, key: &str, absent: bool) -> Result<bool> {
        if self.map.contains_key(key) { self.flag(key) } else { Ok(absent) }
    }

    /// A switch that has to be there.
    pub fn required_flag(&self, key: &str) -> Result<bool> {
        self.required(key, self.typed(key, "true or false", Value::as_bool)?)
    }

    pub fn optional_text(&self, key: &str) -> Result<Option<&'a str>> {
        self.typed(key, "a string", Value::as_str)
    }

    pub fn text(&self, key: &str) -> Result<&'a str> {
        self.required(key, self.optional_text(key)?)
    }

    pub fn optional_array(&self, key: &str) -> Result<Option<&'a Vec<Value>>> {
        self.typed(key, "an array", Value::as_array)
    }

    pub fn optional_object(&self, key: &str) -> Result<Option<Fields<'a>>> {
        let map = self.typed(key, "an object", Value::as_object)?;
        Ok(map.map(|map| Fields { path: self.path, map }))
    }

    /// One token id or an array of them.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = self.typed(key, "a token id or an array of token ids", |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }
}
