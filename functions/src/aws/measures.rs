//! Rows of measures in the table of transfers, by tenant and day.

use handoff::clock::Day;
use handoff::id::TenantId;

use super::{Cloud, binary, binary_of, damaged, failed, number, text, text_of};
use crate::ports::{PortError, PutRow, ReadRows, StoredRow};

/// How long a row is kept, in seconds: a little longer than a year.
const KEPT_SECS: i64 = 400 * 86_400;

fn day_key(tenant: &TenantId, day: Day) -> String {
    format!("T#{tenant}#D#{day}")
}

impl PutRow for Cloud {
    async fn put_row(&self, row: StoredRow) -> Result<(), PortError> {
        let put = self
            .dynamodb()
            .put_item()
            .table_name(&self.names.transfers)
            .item("PK", text(day_key(&row.tenant, row.day)))
            .item("SK", text(&row.key))
            .item("row", binary(&row.body))
            .item("ttl", number(self.wall().unix_secs() + KEPT_SECS));
        put.send().await.map(drop).map_err(|error| failed("the table of transfers", error))
    }
}

impl ReadRows for Cloud {
    async fn rows(&self, tenant: &TenantId, day: Day) -> Result<Vec<StoredRow>, PortError> {
        let items = self.partition(&self.names.transfers, &day_key(tenant, day), "", None).await?;
        items
            .iter()
            .map(|item| {
                let (key, body) = (text_of(item, "SK"), binary_of(item, "row"));
                let (Some(key), Some(body)) = (key, body) else { return Err(damaged("a row of measures")) };
                Ok(StoredRow { tenant: tenant.clone(), day, key: key.to_owned(), body })
            })
            .collect()
    }
}
