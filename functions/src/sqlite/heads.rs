//! The ends of chains for the checkpointer. What is in a checkpoint is remembered per chain,
//! so that a pass costs one look at the heads; forgetting it costs leaves and nothing else.

use std::path::{Path, PathBuf};

use handoff::audit::{ChainId, Hash};
use handoff::checkpoint::Leaf;
use handoff::id::TenantId;
use rusqlite::{Connection, params};

use super::{BUSY_TIMEOUT_MS, DATABASE, Store, StoreError, schema};
use crate::ports::{PortError, ReadHeads};

/// Ends of chains that no checkpoint holds yet.
pub(super) fn unsigned(conn: &Connection, tenant: &TenantId, max: usize) -> Result<Vec<Leaf>, StoreError> {
    let mut statement = conn.prepare_cached(
        "SELECT h.chain, h.seq, h.hash FROM audit_head h LEFT JOIN signed_heads s
         ON s.tenant = h.tenant AND s.chain = h.chain
         WHERE h.tenant = ?1 AND (s.seq IS NULL OR s.seq <> h.seq OR s.hash <> h.hash)
         ORDER BY h.started_at, h.chain LIMIT ?2",
    )?;
    let rows = statement.query_map(params![tenant.as_str(), max], |row| {
        Ok((row.get::<_, String>(0)?, row.get::<_, u64>(1)?, row.get::<_, String>(2)?))
    })?;
    let mut leaves = Vec::new();
    for row in rows {
        let (chain, seq, hash) = row?;
        // A head that is damaged is the verifier's business; the others are not to blame.
        let (Ok(chain), Ok(hash)) = (ChainId::parse(&chain), Hash::parse(&hash)) else {
            tracing::error!(tenant = %tenant, "a damaged head is in no checkpoint");
            continue;
        };
        leaves.push(Leaf { chain, seq, hash });
    }
    Ok(leaves)
}

/// Remembers that a checkpoint holds these.
pub(super) fn mark(conn: &Connection, tenant: &TenantId, leaves: &[Leaf]) -> Result<(), StoreError> {
    let mut statement = conn.prepare_cached(
        "INSERT INTO signed_heads (tenant, chain, seq, hash) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (tenant, chain) DO UPDATE SET seq = excluded.seq, hash = excluded.hash",
    )?;
    for leaf in leaves {
        statement.execute(params![tenant.as_str(), leaf.chain.as_str(), leaf.seq, leaf.hash.to_string()])?;
    }
    Ok(())
}

/// Tenants that have chains.
fn tenants(conn: &Connection) -> Result<Vec<TenantId>, StoreError> {
    let mut statement = conn.prepare("SELECT DISTINCT tenant FROM audit_head ORDER BY tenant")?;
    let names = statement.query_map([], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    Ok(names.iter().filter_map(|name| TenantId::parse(name).ok()).collect())
}

impl Store {
    /// Tenants that have chains.
    pub fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        self.read(|conn, _| tenants(conn))
    }
}

impl ReadHeads for Store {
    async fn unsigned_heads(&self, tenant: &TenantId, max: usize) -> Result<Vec<Leaf>, PortError> {
        Ok(self.read(|conn, _| unsigned(conn, tenant, max))?)
    }

    async fn mark_signed(&self, tenant: &TenantId, leaves: Vec<Leaf>, _size: u64) -> Result<(), PortError> {
        let tenant = tenant.clone();
        self.run(move |tx| mark(tx.conn, &tenant, &leaves)).committed().await?;
        Ok(())
    }
}

/// The heads of a store that another process may have open: the command line's way to them.
#[derive(Debug)]
pub struct HeadsOutside {
    dir: PathBuf,
}

impl HeadsOutside {
    /// The store in `dir`.
    pub fn of(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Tenants that have chains.
    pub fn tenants(&self) -> Result<Vec<TenantId>, StoreError> {
        tenants(&self.connection()?)
    }

    fn connection(&self) -> Result<Connection, StoreError> {
        let path = self.dir.join(DATABASE);
        if !path.is_file() {
            let why = std::io::Error::new(std::io::ErrorKind::NotFound, "no store in this directory");
            return Err(why.into());
        }
        let connection = Connection::open(path)?;
        connection.busy_timeout(std::time::Duration::from_millis(BUSY_TIMEOUT_MS))?;
        schema::create(&connection)?;
        Ok(connection)
    }
}

impl ReadHeads for HeadsOutside {
    async fn unsigned_heads(&self, tenant: &TenantId, max: usize) -> Result<Vec<Leaf>, PortError> {
        Ok(unsigned(&self.connection()?, tenant, max)?)
    }

    async fn mark_signed(&self, tenant: &TenantId, leaves: Vec<Leaf>, _size: u64) -> Result<(), PortError> {
        let connection = self.connection()?;
        let transaction = connection.unchecked_transaction().map_err(StoreError::from)?;
        mark(&transaction, tenant, &leaves)?;
        Ok(transaction.commit().map_err(StoreError::from)?)
    }
}
