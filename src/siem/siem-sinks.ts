import type { DataSource, EntityManager } from 'typeorm';
import { QueryFailedError } from 'typeorm';
import type { Alerts } from '../alerts/alerts.ts';
import type { Env } from '../env.ts';
import { SecretUnavailable } from '../secrets/secret-provider.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Page } from '../shared/paging.ts';
import { uuid } from '../shared/uuid.ts';
import { assertUuid, isUuid } from '../shared/uuid-text.ts';
import { fileInside, pathOfFileUrl } from './file-place.ts';
import { assertCa, type NewSink, type ParkedRecord, type SinkPatch, type SinkRecord } from './sink-definition.ts';
import { sinkUrlFault } from './sink-url.ts';
import { tokenName, type SinkSettings, type SinkType, type TokenSeal } from './sink.ts';

/** Each costs a loop and up to a few MiB of memory where it is exported. */
const SINKS_MAX = 50;
const UNIQUE_VIOLATION = '23505';
const COLUMNS = 's.id, s.name, s.type, s.url, s.sealed_token, s.ca, s.enabled, s.cursor, greatest(h.size - s.cursor, 0) AS lag_events, s.parked, s.last_error, s.last_delivered_at, s.created_at, s.updated_at';
const SINKS = `SELECT ${COLUMNS} FROM siem_sinks s CROSS JOIN audit_head h`;

interface Row {
  id: string;
  name: string;
  type: SinkType;
  url: string;
  sealed_token: string | null;
  ca: string | null;
  enabled: boolean;
  cursor: string;
  lag_events: string;
  parked: string;
  last_error: string | null;
  last_delivered_at: Date | null;
  created_at: Date;
  updated_at: Date;
}

/** Runs in the transaction of a change, for its audit record. */
type Alongside = (manager: EntityManager, before: SinkRecord | null, after: SinkRecord | null) => Promise<void>;

/** Reads and writes SIEM sinks for the admin API. Cursors are the exporter's business, which sees a change within a second. */
export class SiemSinks {
  constructor(
    private readonly dataSource: DataSource,
    private readonly seal: TokenSeal,
    private readonly settings: Pick<Env, 'egress' | 'siemDir'>,
    private readonly alerts: Pick<Alerts, 'resolve'>,
  ) {}

  list({ limit, after }: Page): Promise<SinkRecord[]> {
    return this.#read(this.dataSource.manager, 'WHERE $1::uuid IS NULL OR s.id > $1 ORDER BY s.id LIMIT $2', [after === undefined ? null : assertUuid(after), limit + 1]);
  }

  /** @throws {GatewayError} `not_found` */
  async find(id: string, manager = this.dataSource.manager, lock = ''): Promise<SinkRecord> {
    const [found] = isUuid(id) ? await this.#read(manager, `WHERE s.id = $1 ${lock}`, [id]) : [];
    if (found === undefined) throw new GatewayError('not_found', { publicMessage: 'There is no such sink.' });
    return found;
  }

  async parked(id: string, { limit, after }: Page): Promise<ParkedRecord[]> {
    await this.find(id);
    const rows = await this.dataSource.query<{ id: string; first_index: string; last_index: string; events: string; reason: string; at: Date }[]>(
      'SELECT id, first_index, last_index, events, reason, at FROM siem_parked WHERE sink = $1 AND ($2::uuid IS NULL OR id > $2) ORDER BY id LIMIT $3', [id, after === undefined ? null : assertUuid(after), limit + 1]);
    return rows.map(({ first_index: first, last_index: last, events, ...row }) => ({ ...row, firstIndex: BigInt(first), lastIndex: BigInt(last), events: BigInt(events) }));
  }

  /** @throws {GatewayError} `invalid_request`, `already_exists` */
  async create({ name, type, url, token, ca, enabled, from_index: fromIndex }: NewSink, alongside: Alongside): Promise<SinkRecord> {
    const id = uuid();
    const settings: SinkSettings = { id, name, type, url, ca: ca ?? undefined, enabled: enabled ?? true, sealedToken: await this.#sealed(id, token) };
    await this.#assertUsable(settings);
    return this.dataSource.transaction(async (manager) => {
      const [state] = await manager.query<{ size: string; sinks: string }[]>('SELECT size, (SELECT count(*) FROM siem_sinks) AS sinks FROM audit_head');
      if (Number(state!.sinks) >= SINKS_MAX) throw new GatewayError('invalid_request', { publicMessage: `There are ${SINKS_MAX} sinks already, which is as many as there can be.` });
      if (fromIndex !== undefined && fromIndex > Number(state!.size)) throw new GatewayError('invalid_request', { publicMessage: `from_index is beyond the log, which has ${state!.size} events.`, param: 'from_index' });
      const inserted = await manager.query<unknown[]>(
        'INSERT INTO siem_sinks (id, name, type, url, sealed_token, ca, enabled, cursor) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (name) DO NOTHING RETURNING id',
        [id, name, type, url, settings.sealedToken ?? null, settings.ca ?? null, settings.enabled, fromIndex ?? state!.size]);
      if (inserted.length === 0) throw nameTaken(name);
      const created = await this.find(id, manager);
      await alongside(manager, null, created);
      return created;
    });
  }

  /** @throws {GatewayError} `not_found`, `invalid_request`, `already_exists` */
  async update(id: string, { name, url, token, ca, enabled }: SinkPatch, alongside: Alongside): Promise<SinkRecord> {
    const { type } = await this.find(id);
    // Sealed before the transaction: whoever seals may be on the network.
    const sealedToken = await this.#sealed(id, token);
    if (url !== undefined) await this.#assertPlace(type, url);
    let renamed: string | undefined;
    try {
      const updated = await this.dataSource.transaction(async (manager) => {
        const before = await this.find(id, manager, 'FOR UPDATE OF s');
        const after: SinkRecord = { ...before, name: name ?? before.name, url: url ?? before.url, enabled: enabled ?? before.enabled, ...(token !== undefined && { sealedToken }), ...(ca !== undefined && { ca: ca ?? undefined }) };
        assertFits(after);
        await manager.query('UPDATE siem_sinks SET name = $2, url = $3, sealed_token = $4, ca = $5, enabled = $6, updated_at = now() WHERE id = $1', [id, after.name, after.url, after.sealedToken ?? null, after.ca ?? null, after.enabled]);
        const changed = await this.find(id, manager);
        await alongside(manager, before, changed);
        if (before.name !== changed.name) renamed = before.name;
        return changed;
      });
      if (renamed !== undefined) this.alerts.resolve('siem_lag', renamed); // told again under its new name
      return updated;
    } catch (error) {
      if (error instanceof QueryFailedError && (error.driverError as { code?: string }).code === UNIQUE_VIOLATION) throw nameTaken(name!, error);
      throw error;
    }
  }

  /** What it did not get yet it will not get; the log has it. */
  async remove(id: string, alongside: Alongside): Promise<void> {
    const { name } = await this.dataSource.transaction(async (manager) => {
      const before = await this.find(id, manager, 'FOR UPDATE OF s');
      await manager.query('DELETE FROM siem_sinks WHERE id = $1', [id]);
      await alongside(manager, before, null);
      return before;
    });
    this.alerts.resolve('siem_lag', name);
  }

  async #read(manager: EntityManager, where: string, values: unknown[]): Promise<SinkRecord[]> {
    return (await manager.query<Row[]>(`${SINKS} ${where}`, values)).map(toRecord);
  }

  async #assertUsable(sink: SinkSettings): Promise<void> {
    assertFits(sink);
    await this.#assertPlace(sink.type, sink.url);
  }

  async #assertPlace(type: SinkType, url: string): Promise<void> {
    const fault = sinkUrlFault(type, url, this.settings.egress);
    if (fault !== undefined) throw new GatewayError('invalid_request', { publicMessage: `url ${fault}.`, param: 'url' });
    if (type === 'file' && (await fileInside(this.settings.siemDir, pathOfFileUrl(url)!)) === undefined) {
      throw new GatewayError('invalid_request', { publicMessage: 'url is not inside NOVIX_SIEM_DIR, or in a folder that there is not.', param: 'url' });
    }
  }

  async #sealed(id: string, token: string | null | undefined): Promise<string | undefined> {
    if (token === undefined || token === null) return undefined;
    try {
      return await this.seal.seal(tokenName(id), token);
    } catch (cause) {
      if (cause instanceof SecretUnavailable) throw new GatewayError('provider_unavailable', { publicMessage: 'The token cannot be sealed now. Try again shortly.', retryAfterSeconds: 5, param: 'token', cause });
      throw new GatewayError('invalid_request', { publicMessage: 'token cannot be sealed: the provider of sealed secrets refuses it.', param: 'token', cause });
    }
  }
}

/** @throws {GatewayError} `invalid_request` for settings that do not go together */
function assertFits({ type, sealedToken, ca }: SinkSettings): void {
  if (type === 'hec' && sealedToken === undefined) throw new GatewayError('invalid_request', { publicMessage: 'token: a HEC takes nothing without one.', param: 'token' });
  if ((type === 'syslog' || type === 'file') && sealedToken !== undefined) throw new GatewayError('invalid_request', { publicMessage: `token: sinks of type ${type} have none.`, param: 'token' });
  if (type === 'file' && ca !== undefined) throw new GatewayError('invalid_request', { publicMessage: 'ca: sinks of type file have none.', param: 'ca' });
  if (ca !== undefined) assertCa(ca);
}

function nameTaken(name: string, cause?: unknown): GatewayError {
  return new GatewayError('already_exists', { publicMessage: `There is a sink ${JSON.stringify(name)} already. Change it by PATCH, or choose another name.`, param: 'name', cause });
}

function toRecord({ sealed_token: sealedToken, ca, cursor, lag_events: lagEvents, parked, last_error: lastError, last_delivered_at: lastDeliveredAt, created_at: createdAt, updated_at: updatedAt, ...row }: Row): SinkRecord {
  return {
    ...row, sealedToken: sealedToken ?? undefined, ca: ca ?? undefined, cursor: BigInt(cursor), lagEvents: BigInt(lagEvents), parked: BigInt(parked), lastError: lastError ?? undefined, lastDeliveredAt: lastDeliveredAt ?? undefined, createdAt, updatedAt,
  };
}
