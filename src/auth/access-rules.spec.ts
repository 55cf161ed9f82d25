import { afterEach, beforeEach, describe, expect, it, jest } from '@jest/globals';
import fc from 'fast-check';
import { pino } from 'pino';
import type { Pool } from 'pg';
import type { Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Notifications } from '../shared/notifications.ts';
import { AccessRules } from './access-rules.ts';
import { DecisionPoint, type CallSubject, type Policy } from './decision-point.ts';
import type { Rule } from './policy.ts';
import type { Principal } from './principal.ts';

interface StoredPolicy {
  id: string;
  tenant_id: string | null;
  name: string;
  status: 'enforced' | 'shadow';
  rules: Rule[];
}

const rule = (id: string, effect: Rule['effect'], more: Partial<Rule> = {}): Rule => ({ id, effect, actions: ['invoke'], ...more });
const stored = (id: string, tenant: string | null, ...rules: Rule[]): StoredPolicy => ({ id, tenant_id: tenant, name: id, status: 'enforced', rules });
const BUILT_IN: Policy[] = [{ name: 'roles', rules: [rule('everyone', 'allow')] }];
const CALL: CallSubject = { modelNames: ['grok-beta'], attributes: {} };
const PRINCIPAL: Principal = { tenantId: 'acme', tier: 'standard', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.5, ceilingTicks: undefined, holds: 'bounded' }, subject: 'ada', roles: [], attributes: {}, clientId: undefined, issuer: 'i', tokenId: 'j', expiresAtMs: 1e15, mtls: false };

/** Stands in for the database: what it holds, whether it answers, and when. */
class Database {
  number = 1;
  policies: StoredPolicy[] = [];
  revocations: { type: string; value: string; tenant_id: string | null; expires_at: Date | null }[] = [];
  fails: RegExp | undefined;
  readonly asked: string[] = [];
  /** Runs before an answer is given. */
  before: (sql: string) => Promise<void> | void = () => {};

  readonly pool = {
    query: async (sql: string): Promise<{ rows: unknown[] }> => {
      this.asked.push(sql);
      await this.before(sql);
      if (this.fails?.test(sql)) throw new Error('the connection broke');
      const number = String(this.number);
      if (!sql.includes('FROM policies')) return { rows: [{ number }] };
      const revocations = this.revocations.map(({ expires_at: expiresAt, ...rest }) => ({ ...rest, expires_at_ms: expiresAt?.getTime() ?? null }));
      return { rows: structuredClone([{ number, policies: this.policies, revocations }]) };
    },
  } as unknown as Pick<Pool, 'query'>;

  change(policies: StoredPolicy[]): void {
    this.policies = policies;
    this.number += 1;
  }
}

let database: Database;
let nowMs: number;
let ownMs: number;
let rules: AccessRules;
beforeEach(() => {
  database = new Database();
  nowMs = 1_000;
  ownMs = 50_000;
  jest.spyOn(performance, 'now').mockImplementation(() => ownMs);
  const clock: Clock = { nowMs: () => nowMs, monotonicMs: () => 0 };
  rules = new AccessRules(database.pool, BUILT_IN, 'config-1', clock, pino({ level: 'silent' }));
});
afterEach(() => {
  rules.close();
  jest.restoreAllMocks();
});

const allows = (tenant = 'acme'): boolean => rules.pointFor(tenant).decide('invoke', CALL).allowed;
function failure(work: () => unknown): unknown {
  try {
    work();
  } catch (error) {
    return error instanceof GatewayError ? error.code : error;
  }
  return undefined;
}

describe('AccessRules', () => {
  it('allows nothing before the rules were read for the first time', () => {
    expect([rules.fresh, failure(() => rules.pointFor('acme')), failure(() => rules.assertFresh())]).toEqual([false, 'policy_unavailable', 'policy_unavailable']);
  });

  it('decides a tenant by the reviewed rules, the platform’s and its own', async () => {
    database.policies = [stored('p', 'acme', rule('d', 'deny'))];
    await rules.refresh();
    expect([allows('acme'), allows('globex')]).toEqual([false, true]);
    database.change([stored('p', null, rule('d', 'deny'))]);
    await rules.refresh();
    expect([allows('acme'), allows('globex')]).toEqual([false, false]);
    database.change([]);
    await rules.refresh();
    expect([allows('acme'), allows('globex')]).toEqual([true, true]);
  });

  it('names the state of all rules, and compiles a tenant’s once per state', async () => {
    await rules.refresh();
    expect(rules.revision).toBe('1-config-1');
    const point = rules.pointFor('acme');
    expect(point.revision).toBe('1-config-1');
    await rules.refresh();
    expect(rules.pointFor('acme')).toBe(point);
    expect(rules.pointFor('globex')).not.toBe(point);
    database.change([]);
    await rules.refresh();
    expect([rules.revision, rules.pointFor('acme').revision, rules.pointFor('acme') === point]).toEqual(['2-config-1', '2-config-1', false]);
  });

  it('reads rules only where the number says that there is something new, and tells only then', async () => {
    const told = jest.fn();
    rules.onChange(told);
    await rules.refresh();
    expect([database.asked.length, told.mock.calls.length]).toEqual([2, 1]);
    await rules.refresh();
    await rules.refresh();
    expect([database.asked.length, told.mock.calls.length]).toEqual([4, 1]);
    database.change([stored('p', 'acme', rule('d', 'deny'))]);
    let seen: boolean | undefined;
    rules.onChange(() => {
      seen = allows();
    });
    await rules.refresh();
    expect([told.mock.calls.length, seen]).toEqual([2, false]); // whoever is told sees the new rules
  });

  it('stops allowing five seconds after the last confirmation, counted from when it was asked for', async () => {
    database.before = () => {
      ownMs += 500; // a slow database
    };
    const askedMs = ownMs;
    await rules.refresh();
    database.before = () => {};
    ownMs = askedMs + 5_000;
    expect([rules.fresh, failure(() => rules.pointFor('acme'))]).toEqual([true, undefined]);
    ownMs = askedMs + 5_001;
    expect([rules.fresh, failure(() => rules.pointFor('acme')), failure(() => rules.assertFresh())]).toEqual([false, 'policy_unavailable', 'policy_unavailable']);
    await rules.refresh(); // nothing has changed, and that is a confirmation
    expect([rules.fresh, allows()]).toEqual([true, true]);
  });

  it('keeps its rules through a failure, and reads them once it can', async () => {
    await rules.refresh();
    for (const [round, fails] of [/access_revision/, /FROM policies/, /FROM revocations/].entries()) {
      database.change([stored(`p${round}`, 'acme', rule('d', round % 2 === 0 ? 'deny' : 'allow'))]);
      database.fails = fails;
      const [revision, before] = [rules.revision, allows()];
      await expect(rules.refresh()).rejects.toThrow('the connection broke');
      expect([rules.revision, allows()]).toEqual([revision, before]);
      database.fails = undefined;
      await rules.refresh();
      expect([rules.revision, allows()]).toEqual([`${database.number}-config-1`, round % 2 !== 0]);
    }
  });

  it('is not confirmed by a read that failed half-way', async () => {
    await rules.refresh();
    database.change([]);
    database.fails = /FROM revocations/;
    ownMs += 5_001;
    await expect(rules.refresh()).rejects.toThrow('the connection broke');
    expect(rules.fresh).toBe(false);
  });

  it('never answers a refresh with a read that began before it', async () => {
    await rules.refresh();
    let release!: () => void;
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const answered: string[] = [];
    database.before = async (sql) => {
      if (answered.push(sql) === 1) await held;
    };
    const early = rules.refresh();
    database.change([stored('p', 'acme', rule('d', 'deny'))]);
    const late = rules.refresh();
    release();
    await Promise.all([early, late]);
    expect(answered.filter((sql) => !sql.includes('FROM policies'))).toHaveLength(2);
    expect([rules.revision, allows()]).toEqual(['2-config-1', false]);
  });

  it('goes on after a refresh that failed while another waited for it', async () => {
    await rules.refresh();
    database.fails = /access_revision/;
    const broken = rules.refresh();
    const waiting = rules.refresh();
    broken.catch(() => {
      database.fails = undefined;
    });
    await expect(broken).rejects.toThrow('the connection broke');
    await waiting;
    database.change([stored('p', 'acme', rule('d', 'deny'))]);
    await rules.refresh();
    expect(allows()).toBe(false);
  });

  it('looks when it is told, and does not fall over where the look fails', async () => {
    const listeners: (() => void)[] = [];
    const notifications = { on: (_topic: string, listener: () => void) => listeners.push(listener) } as unknown as Notifications;
    await rules.open(notifications);
    expect([listeners.length, allows()]).toEqual([1, true]);
    database.fails = /access_revision/;
    listeners[0]!();
    await new Promise((resolve) => setImmediate(resolve));
    database.fails = undefined;
    database.change([stored('p', 'acme', rule('d', 'deny'))]);
    const changed = new Promise<void>((resolve) => {
      rules.onChange(resolve);
    });
    listeners[0]!();
    await changed;
    expect(allows()).toBe(false);
  });

  it('tries a candidate beside the others, or in the place of the one that it would replace, and keeps nothing of it', async () => {
    database.policies = [stored('p', 'acme', rule('d', 'deny', { models: ['grok-beta'] })), stored('q', null, rule('e', 'deny', { models: ['grok-pro'] }))];
    await rules.refresh();
    const tried = (id: string | undefined, models: string[]): boolean => rules.pointWith('acme', id, { name: 'candidate', rules: [rule('x', 'allow')] }).decide('invoke', { modelNames: models, attributes: {} }).allowed;
    expect([tried(undefined, ['grok-beta']), tried('p', ['grok-beta']), tried('p', ['grok-pro'])]).toEqual([false, true, false]);
    expect(rules.pointWith('acme', 'p', { name: 'candidate', rules: [rule('x', 'deny', { models: ['grok-enterprise'] })] }).decide('invoke', { modelNames: ['grok-enterprise'], attributes: {} })).toMatchObject({ allowed: false, policy: 'candidate', rule: 'x' });
    expect(allows()).toBe(false);
  });

  it('knows what is revoked, by its own clock', async () => {
    expect(rules.isRevoked(PRINCIPAL)).toBe(false);
    database.revocations = [{ type: 'sub', value: 'ada', tenant_id: null, expires_at: new Date(2_000) }, { type: 'jti', value: 'k', tenant_id: 'acme', expires_at: null }];
    await rules.refresh();
    expect([rules.isRevoked(PRINCIPAL), rules.isRevoked({ ...PRINCIPAL, subject: 'eve' }), rules.isRevoked({ ...PRINCIPAL, subject: 'eve', tokenId: 'k' }), rules.isRevoked({ ...PRINCIPAL, subject: 'eve', tokenId: 'k', tenantId: 'globex' })]).toEqual([true, false, true, false]);
    nowMs = 2_000;
    expect(rules.isRevoked(PRINCIPAL)).toBe(false);
    database.revocations = [];
    database.number += 1;
    await rules.refresh();
    expect(rules.isRevoked({ ...PRINCIPAL, tokenId: 'k' })).toBe(false);
  });

  it('lets no policy of one tenant touch another, whatever they are', async () => {
    const some = fc.array(fc.record({
      tenant: fc.constantFrom('acme', 'globex', null), status: fc.constantFrom('enforced' as const, 'shadow' as const),
      rules: fc.array(fc.record({ id: fc.uuid(), effect: fc.constantFrom('allow' as const, 'deny' as const), actions: fc.constant<['invoke']>(['invoke']), models: fc.constantFrom<string[]>(['grok-beta'], ['grok-pro'], ['*']) }), { minLength: 1, maxLength: 3 }),
    }), { maxLength: 6 });
    await fc.assert(fc.asyncProperty(some, async (all) => {
      database.change(all.map(({ tenant, status, rules: its }, at) => ({ ...stored(`p${at}`, tenant, ...its), status })));
      await rules.refresh();
      for (const tenant of ['acme', 'globex', 'initech']) {
        const own = database.policies.filter((policy) => policy.tenant_id === null || policy.tenant_id === tenant);
        expect(rules.pointFor(tenant).decide('invoke', CALL).allowed).toBe(new DecisionPoint('', [...BUILT_IN, ...own]).decide('invoke', CALL).allowed);
        // One more deny, wherever it stands, grants nothing.
        const denied = rules.pointWith(tenant, undefined, { name: 'x', rules: [rule('x', 'deny', { models: ['grok-beta'] })] });
        expect(denied.decide('invoke', CALL).allowed).toBe(false);
      }
    }), { numRuns: 1_000 });
  });
});
