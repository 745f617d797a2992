//! The measures of many calls. A [`Row`](row::Row) is folded from the records of one call;
//! the [`figures`] are taken over many rows, each with its sample size and its bounds; the
//! [`diagnosis`] leads from a bad figure to the layer and the setting behind it. A figure
//! without enough calls behind it says so and never fires, and no setting is ever changed
//! from here. Nothing in these files is personal: a caller is the keyed pseudonym of the trail.

pub mod diagnosis;
pub mod figures;
pub mod handling;
pub mod proportion;
pub mod report;
pub mod row;

#[cfg(test)]
mod fixture;
