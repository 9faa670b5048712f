//! Evaluates the rules in the schema (`x-kubernetes-validations`) as the API server does for an
//! object that is created: rules about changes are left out.
//!
//! Knows the functions our rules use, not all that Kubernetes has; a rule that does not compile is
//! a defect, found by the tests.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use cel::extractors::This;
use cel::objects::Opaque;
use cel::{Context, ExecutionError, Program, Value as Cel};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool, ValidationRule,
};
use regex::Regex;
use serde_json::Value;

use super::violation::{Kind, Violation};
use crate::path::Path;
use crate::quantity::Quantity;

/// A rule that speaks of what was there before names it so.
const OLD: &str = "oldSelf";
/// CEL's function, and ours that does the same: the interpreter's own compiles the pattern anew at
/// each call, which costs more than all the rest of a check.
const MATCHES: [&str; 2] = [".matches(", ".matchesKept("];

/// Compiled rules, by their text, and the functions they may call.
pub(crate) struct Rules {
    programs: HashMap<String, Program>,
    functions: Context<'static, 'static>,
}

impl Rules {
    pub(crate) fn new() -> Self {
        let mut functions = Context::default();
        declare(&mut functions).expect("CEL itself has no functions of these names");
        Self {
            programs: HashMap::new(),
            functions,
        }
    }

    /// Adds what the rules of `schema`, and below it, say against `value`.
    pub(crate) fn check(
        &mut self,
        schema: &JSONSchemaProps,
        value: &Value,
        at: &Path,
        found: &mut Vec<Violation>,
    ) {
        for rule in schema.x_kubernetes_validations.iter().flatten() {
            if !rule.rule.contains(OLD) {
                found.extend(self.broken(rule, value, at));
            }
        }
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let at = at.field(name);
                    if let Some(schema) = property(schema, name) {
                        self.check(schema, field, &at, found);
                    }
                }
            }
            Value::Array(items) => {
                let Some(JSONSchemaPropsOrArray::Schema(schema)) = &schema.items else {
                    return;
                };
                for (i, item) in items.iter().enumerate() {
                    self.check(schema, item, &at.item(i), found);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn broken(&mut self, rule: &ValidationRule, value: &Value, at: &Path) -> Option<Violation> {
        let message = rule.message.clone().unwrap_or_else(|| rule.rule.clone());
        match self.evaluate(&rule.rule, value) {
            Ok(true) => None,
            Ok(false) => {
                let at = at.relative(rule.field_path.as_deref().unwrap_or_default());
                Some(Violation::new(at, Kind::Invalid, message))
            }
            // The API server names the field of the rule itself, then.
            Err(error) => {
                let message = format!("{message} ({error})");
                Some(Violation::new(at.clone(), Kind::Invalid, message))
            }
        }
    }

    fn evaluate(&mut self, rule: &str, value: &Value) -> Result<bool, String> {
        if !self.programs.contains_key(rule) {
            let ours = rule.replace(MATCHES[0], MATCHES[1]);
            let program = Program::compile(&ours).map_err(|error| error.to_string())?;
            self.programs.insert(rule.to_owned(), program);
        }
        let mut context = self.functions.new_inner_scope();
        context.add_variable_from_value("self", to_cel(value));
        match self.programs[rule].execute(&context) {
            Ok(Cel::Bool(holds)) => Ok(holds),
            Ok(other) => Err(format!("the rule gives {:?}, not a bool", other.type_of())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// The schema of a field: a property, or the values of a map.
pub(crate) fn property<'a>(schema: &'a JSONSchemaProps, name: &str) -> Option<&'a JSONSchemaProps> {
    let properties = schema.properties.as_ref();
    properties
        .and_then(|p| p.get(name))
        .or(match &schema.additional_properties {
            Some(JSONSchemaPropsOrBool::Schema(schema)) => Some(schema),
            Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
        })
}

fn declare(context: &mut Context<'_, '_>) -> Result<(), cel::DeclarationError> {
    context.add_function("quantity", |text: Arc<String>| {
        Quantity::parse(&text)
            .map(|quantity| Cel::Opaque(Arc::new(quantity)))
            .ok_or_else(|| {
                ExecutionError::function_error("quantity", format!("{text:?} is no quantity"))
            })
    })?;
    context.add_function("compareTo", |This(this): This<Cel>, other: Cel| {
        let (Some(this), Some(other)) = (as_quantity(&this), as_quantity(&other)) else {
            return Err(ExecutionError::not_supported_as_method("compareTo", this));
        };
        Ok(Cel::Int(this.cmp(other) as i64))
    })?;
    let kept = Mutex::new(HashMap::new());
    let matches = move |This(text): This<Arc<String>>, pattern: Arc<String>| {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        let compiled = kept
            .entry(pattern)
            .or_insert_with_key(|pattern| Regex::new(pattern));
        match compiled {
            Ok(pattern) => Ok(pattern.is_match(&text)),
            Err(error) => Err(ExecutionError::function_error("matches", error)),
        }
    };
    context.add_function("matchesKept", matches)
}

impl Opaque for Quantity {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.Quantity"
    }
}

fn as_quantity(value: &Cel) -> Option<&Quantity> {
    match value {
        Cel::Opaque(opaque) => opaque.downcast_ref(),
        _ => None,
    }
}

/// Integers stay integers, whatever their sign: CEL has another type for those of serde.
fn to_cel(value: &Value) -> Cel {
    match value {
        Value::Null => Cel::Null,
        Value::Bool(value) => Cel::Bool(*value),
        Value::Number(value) => value
            .as_i64()
            .map_or_else(|| Cel::Float(value.as_f64().unwrap_or(f64::NAN)), Cel::Int),
        Value::String(value) => Cel::String(Arc::new(value.clone())),
        Value::Array(items) => Cel::List(Arc::new(items.iter().map(to_cel).collect())),
        Value::Object(fields) => {
            let fields = fields
                .iter()
                .map(|(name, value)| (name.clone(), to_cel(value)));
            Cel::Map(fields.collect::<HashMap<_, _>>().into())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn holds(rule: &str, value: Value) -> Result<bool, String> {
        Rules::new().evaluate(rule, &value)
    }

    #[test]
    fn quantities_compare_by_amount() {
        let rule = "quantity(string(self)).compareTo(quantity('1Gi')) >= 0";
        assert_eq!(holds(rule, json!("1024Mi")), Ok(true));
        assert_eq!(holds(rule, json!(1 << 30)), Ok(true));
        assert_eq!(holds(rule, json!("1000M")), Ok(false));
        assert!(holds(rule, json!("much")).is_err());
    }

    #[test]
    fn durations_compare_by_length() {
        let rule = "duration(self) >= duration('1s') && duration(self) <= duration('12h')";
        assert_eq!(holds(rule, json!("1h30m")), Ok(true));
        assert_eq!(holds(rule, json!("999ms")), Ok(false));
        assert!(holds(rule, json!("999999999h")).is_err());
        assert!(holds(rule, json!("soon")).is_err());
    }

    #[test]
    fn patterns_match_anywhere_unless_they_say_otherwise() {
        assert_eq!(holds("self.matches('b+')", json!("abc")), Ok(true));
        assert_eq!(holds("self.matches('^b+$')", json!("abc")), Ok(false));
        assert!(holds("self.matches('(')", json!("abc")).is_err());
    }

    #[test]
    fn lengths_are_counted_in_bytes_where_the_rule_says_so() {
        assert_eq!(holds("size(bytes(self)) <= 3", json!("aé")), Ok(true));
        assert_eq!(holds("size(bytes(self)) <= 3", json!("éé")), Ok(false));
    }

    #[test]
    fn a_rule_may_ask_whether_a_field_is_there() {
        assert_eq!(
            holds("has(self.a) && !has(self.b.c)", json!({ "a": 1, "b": {} })),
            Ok(true)
        );
    }
}
