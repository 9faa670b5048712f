//! Where in a resource something is, spelled as the API server spells it:
//! `spec.bindings[0].subject`.

use std::fmt;

/// A path of a field.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path(Vec<Step>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Field(String),
    Item(usize),
}

impl Path {
    /// The resource itself.
    pub(crate) const fn root() -> Self {
        Self(Vec::new())
    }

    /// A field of what is here.
    pub(crate) fn field(&self, name: &str) -> Self {
        self.with(Step::Field(name.to_owned()))
    }

    /// An item of the list that is here.
    pub(crate) fn item(&self, index: usize) -> Self {
        self.with(Step::Item(index))
    }

    /// A path that begins here and goes on as a rule's `fieldPath` does: `.a.b`.
    pub(crate) fn relative(&self, field_path: &str) -> Self {
        field_path
            .split('.')
            .filter(|name| !name.is_empty())
            .fold(self.clone(), |path, name| path.field(name))
    }

    /// What this is a field or item of.
    pub(crate) fn parent(&self) -> Option<Self> {
        let (_, parent) = self.0.split_last()?;
        Some(Self(parent.to_vec()))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, step) in self.0.iter().enumerate() {
            match step {
                Step::Field(name) if i == 0 => f.write_str(name)?,
                Step::Field(name) => write!(f, ".{name}")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}
