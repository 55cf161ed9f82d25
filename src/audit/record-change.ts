import type { FastifyRequest } from 'fastify';
import { clientIp } from '../shared/client-ip.ts';
import { routeOf } from '../shared/route-of.ts';
import type { EntityManager } from 'typeorm';
import { uuid } from '../shared/uuid.ts';
import { packLeaves } from '../journal/packed-leaves.ts';
import { actorOf, auditEventText, leafEntry, type AuditActor } from './audit-event.ts';

/** Who changes configuration, by which way. */
export interface ChangeOrigin {
  requestId: string;
  actor: AuditActor;
  operation: string;
  ip: string;
}

export interface ConfigurationChange {
  origin: ChangeOrigin;
  timeMs: number;
  activity: 'create' | 'read' | 'update' | 'delete';
  /** What was changed, and how it looked before and after. */
  object: { type: string; id: string };
  before: unknown;
  after: unknown;
}

export function originOf(request: FastifyRequest): ChangeOrigin {
  return { requestId: request.id, actor: actorOf(request.principal), operation: routeOf(request)!, ip: clientIp(request) };
}

/** Records a change of configuration in the transaction that makes it: neither is there without the other. */
export async function recordChange(manager: EntityManager, { origin, timeMs, activity, object, before, after }: ConfigurationChange): Promise<void> {
  const id = uuid();
  const text = auditEventText({ ...origin, id, timeMs, activity, phase: 'change', httpStatus: activity === 'create' ? 201 : 200, errorCode: undefined, details: { object, before, after } });
  const { heads, bodies } = packLeaves([leafEntry(id, { tenant: origin.actor.tenant, requestId: origin.requestId }, text)]);
  await manager.query("SELECT audit_append('{0}', $1, $2)", [heads, bodies]);
}
