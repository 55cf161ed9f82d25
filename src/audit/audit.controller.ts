import { Controller, Get, Inject, Param, Query, Req, Res } from '@nestjs/common';
import { ApiBearerAuth, ApiParam, ApiProduces, ApiQuery, ApiTags } from '@nestjs/swagger';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Pool } from 'pg';
import { Type } from 'typebox';
import type { Principal } from '../auth/principal.ts';
import { Public, Roles } from '../auth/route-access.ts';
import { roleDenied } from '../auth/role-denied.ts';
import { isPlatformAdmin } from '../auth/scope.ts';
import { ApiAnswers } from '../openapi/documented.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { readPage } from '../shared/paging.ts';
import { parseTime } from '../shared/time-text.ts';
import { isUuid } from '../shared/uuid-text.ts';
import type { AuditPhase } from './audit-event.ts';
import { verifierKeys } from './checkpoint.ts';
import { readEvents, readLeaf, type EventFilter } from './recorded-events.ts';
import { formatVerifierKey } from './signed-note.ts';
import type { SigningKeys } from './signing-keys.ts';
import { entryBundle, parseTilePath, TILE_WIDTH } from './tlog-tiles.ts';
import { latestCheckpoint, proveInclusion, PrunedError, readEntries, readHashTile, readHead } from './transparency-log.ts';

/** Injection tokens: the pool that the log is read by, and the keys that it is signed with. */
export const AUDIT_POOL = Symbol('audit pool');
export const SIGNING_KEYS = Symbol('signing keys');

const PLATFORM = 'platform';
const PHASES = ['intent', 'outcome', 'refusal', 'change'] as const satisfies readonly AuditPhase[];
const FILTERS = ['tenant', 'request_id', 'phase', 'from', 'to', 'limit', 'cursor'];
const TEXT = 'text/plain; charset=utf-8';
/** A whole tile never changes; one that grows has its width in its name. */
const FOR_EVER = 'private, max-age=31536000, immutable';
const Event = Type.Object({ index: Type.Integer({ minimum: 0 }) }, { additionalProperties: true, description: 'An OCSF 1.8 event, and its index in the log' });

/**
 * `/audit/v1`: the transparency log, as any verifier of C2SP logs reads it, and its events.
 *
 * Hashes tell nothing of what was recorded, so that any tenant's auditor may check the whole log; leaves are read by the platform's auditors, and by a
 * tenant's own where they are its own.
 */
@ApiTags('audit')
@ApiBearerAuth()
@Controller('audit/v1')
@Roles('auditor')
export class AuditController {
  constructor(
    @Inject(AUDIT_POOL) private readonly pool: Pool,
    @Inject(SIGNING_KEYS) private readonly keys: SigningKeys | null,
  ) {}

  /** Public, since keys are of use only to whoever got them by another way too. */
  @Get('keys')
  @Public()
  @ApiProduces(TEXT)
  @ApiAnswers(200, Type.String({ description: 'Verifier keys of C2SP signed notes, one a line' }))
  async verifierKeys(@Res() reply: FastifyReply): Promise<void> {
    if (this.keys === null) throw unsigned();
    const { origin } = await readHead(this.pool);
    send(reply, TEXT, 'no-cache', `${verifierKeys(origin, this.keys).map(formatVerifierKey).join('\n')}\n`);
  }

  @Get('checkpoint')
  @ApiProduces(TEXT)
  @ApiAnswers(200, Type.String({ description: 'C2SP tlog-checkpoint' }), [403])
  async checkpoint(@Res() reply: FastifyReply): Promise<void> {
    const checkpoint = await latestCheckpoint(this.pool);
    if (checkpoint === undefined) throw unsigned();
    send(reply, TEXT, 'no-cache', checkpoint.note);
  }

  @Get('tile/*')
  @ApiParam({ name: 'path', description: '<level>/<number>[.p/<width>], or entries/<number>[.p/<width>]; numbers as x001/x234/067' })
  @ApiProduces('application/octet-stream')
  @ApiAnswers(200, Type.String({ format: 'binary' }), [403, 404, 410])
  async tile(@Req() request: FastifyRequest, @Res() reply: FastifyReply): Promise<void> {
    const path = parseTilePath(request.url.split('?')[0]!.slice('/audit/v1/tile/'.length));
    if (path === undefined) throw notFound('no tile of that name');
    if (path.kind === 'entries') {
      if (!seesAll(request.principal!)) throw roleDenied('Tiles of entries hold leaves of all tenants: they are for auditors of the platform. GET /audit/v1/events lists those of your own.');
      const bodies = await this.#unlessPruned(() => readEntries(this.pool, path));
      if (bodies === undefined) throw notFound('no such tile yet');
      send(reply, 'application/octet-stream', FOR_EVER, entryBundle(bodies));
      return;
    }
    const hashes = await readHashTile(this.pool, path);
    if (hashes === undefined) throw notFound('no such tile yet');
    send(reply, 'application/octet-stream', path.width === TILE_WIDTH ? FOR_EVER : 'private, max-age=3600', hashes);
  }

  @Get('proof/:index')
  @ApiProduces(TEXT)
  @ApiAnswers(200, Type.String({ description: 'C2SP tlog-proof@v1' }), [403, 404, 410])
  async proof(@Req() request: FastifyRequest, @Param('index') text: string, @Res() reply: FastifyReply): Promise<void> {
    const index = readIndex(text);
    const proof = await this.#unlessPruned(() => proveInclusion(this.pool, index));
    if (proof === undefined || (!seesAll(request.principal!) && (await this.#leaf(request, index)) === undefined)) throw notFound('no such leaf in the last checkpoint; one that was recorded just now is in the next, within a second');
    send(reply, TEXT, 'no-cache', proof);
  }

  /** A leaf's own bytes: what a proof is about. */
  @Get('leaf/:index')
  @ApiProduces('application/octet-stream')
  @ApiAnswers(200, Type.String({ format: 'binary' }), [403, 404, 410])
  async leaf(@Req() request: FastifyRequest, @Param('index') text: string, @Res() reply: FastifyReply): Promise<void> {
    const index = readIndex(text);
    const { prunedBelow } = await readHead(this.pool);
    const body = await this.#unlessPruned(() => (index < prunedBelow ? Promise.reject(new PrunedError()) : this.#leaf(request, index)));
    if (body === undefined) throw notFound('no such leaf');
    send(reply, 'application/octet-stream', FOR_EVER, body);
  }

  @Get('events')
  @ApiQuery({ name: 'tenant', required: false, description: 'For the platform’s auditors; others see their own' })
  @ApiQuery({ name: 'request_id', required: false, description: 'x-request-id of a call' })
  @ApiQuery({ name: 'phase', required: false, schema: { type: 'string', enum: [...PHASES] } })
  @ApiQuery({ name: 'from', required: false, schema: { type: 'string', format: 'date-time' } })
  @ApiQuery({ name: 'to', required: false, schema: { type: 'string', format: 'date-time' } })
  @ApiQuery({ name: 'limit', required: false, schema: { type: 'integer', minimum: 1, maximum: 200, default: 50 } })
  @ApiQuery({ name: 'cursor', required: false, description: 'next_cursor of the page before' })
  @ApiAnswers(200, Type.Object({ data: Type.Array(Event), next_cursor: Type.Union([Type.String(), Type.Null()]) }), [400, 403])
  async events(@Req() request: FastifyRequest, @Query() query: Record<string, unknown>, @Res() reply: FastifyReply): Promise<void> {
    const { limit, after } = readPage(query);
    if (after !== undefined && !/^\d{1,15}$/.test(after)) throw invalid('cursor', 'is not one that this list gave out');
    const { events, next } = await readEvents(this.pool, readFilter(query, request.principal!), after === undefined ? undefined : Number(after), limit);
    const cursor = next === undefined ? null : Buffer.from(String(next)).toString('base64url');
    // Events go out as they were recorded.
    send(reply, 'application/json; charset=utf-8', 'no-store', `{"data":[${events.join(',')}],"next_cursor":${JSON.stringify(cursor)}}`);
  }

  #leaf(request: FastifyRequest, index: number): Promise<Buffer | undefined> {
    return readLeaf(this.pool, index, seesAll(request.principal!) ? undefined : request.principal!.tenantId);
  }

  async #unlessPruned<T>(read: () => Promise<T>): Promise<T> {
    try {
      return await read();
    } catch (error) {
      if (!(error instanceof PrunedError)) throw error;
      throw new GatewayError('pruned', { publicMessage: 'This part of the log was pruned by policy at the end of its retention. The tree still has its hashes.' });
    }
  }
}

function seesAll(principal: Principal): boolean {
  return isPlatformAdmin(principal) || principal.tenantId === PLATFORM;
}

function readFilter(query: Record<string, unknown>, principal: Principal): EventFilter {
  const unknown = Object.keys(query).find((name) => !FILTERS.includes(name));
  if (unknown !== undefined) throw invalid(unknown.slice(0, 64), `is not known here; ${FILTERS.join(', ')} are`);
  const { tenant, request_id: requestId, phase } = query;
  if (tenant !== undefined && (typeof tenant !== 'string' || (!seesAll(principal) && tenant !== principal.tenantId))) throw notFound('no such tenant');
  if (requestId !== undefined && (typeof requestId !== 'string' || !isUuid(requestId))) throw invalid('request_id', 'takes the x-request-id of an answer');
  if (phase !== undefined && !(PHASES as readonly unknown[]).includes(phase)) throw invalid('phase', `takes one of ${PHASES.join(', ')}`);
  return { tenantId: seesAll(principal) ? tenant : principal.tenantId, requestId, phase: phase as AuditPhase | undefined, fromMs: readTime(query, 'from'), toMs: readTime(query, 'to') };
}

function readTime(query: Record<string, unknown>, name: 'from' | 'to'): number | undefined {
  const text = query[name];
  if (text === undefined) return undefined;
  const timeMs = typeof text === 'string' ? parseTime(text) : undefined;
  if (timeMs === undefined) throw invalid(name, 'takes a time such as 2026-11-24T00:00:00Z');
  return timeMs;
}

function readIndex(text: string): number {
  if (!/^(0|[1-9]\d{0,14})$/.test(text)) throw notFound('no such leaf');
  return Number(text);
}

function send(reply: FastifyReply, type: string, cacheControl: string, body: string | Buffer): void {
  void reply.header('content-type', type).header('cache-control', cacheControl).send(body);
}

function notFound(what: string): GatewayError {
  return new GatewayError('not_found', { publicMessage: `There is ${what}.` });
}

function invalid(param: string, what: string): GatewayError {
  return new GatewayError('invalid_request', { publicMessage: `${param} ${what}.`, param });
}

function unsigned(): GatewayError {
  return new GatewayError('audit_unavailable', { publicMessage: 'The log has no signed checkpoint yet.', retryAfterSeconds: 1 });
}
