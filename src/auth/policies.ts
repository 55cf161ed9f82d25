import { createHash } from 'node:crypto';
import { IsNull, MoreThan, type DataSource, type EntityManager, type FindOptionsWhere } from 'typeorm';
import { Type } from 'typebox';
import { Compile } from 'typebox/compile';
import { GatewayError } from '../shared/gateway-error.ts';
import type { Page } from '../shared/paging.ts';
import { uuid } from '../shared/uuid.ts';
import { assertUuid, isUuid } from '../shared/uuid-text.ts';
import { Tenant } from '../tenants/tenant.ts';
import { moveAccessRevision } from './access-revision.ts';
import type { AccessRules } from './access-rules.ts';
import { PolicyEntity } from './policy-entity.ts';
import { compileConditions, ConditionError, RuleSchema, type Rule } from './policy.ts';

export type PolicyFields = Pick<PolicyEntity, 'tenantId' | 'name' | 'status' | 'rules'>;
type Alongside = (manager: EntityManager, before: PolicyEntity | null, after: PolicyEntity | null) => Promise<void>;

const RULES_MAX = 500;
/** A record names so many: twice of them, before and after, have to fit into it. */
const RULES_NAMED_MAX = 50;
/** Of one tenant, and likewise of the platform: decisions have to stay quick. */
const RULES_IN_ALL_MAX = 2_000;
const rulesValidator = Compile(Type.Array(RuleSchema, { minItems: 1, maxItems: RULES_MAX }));

/** Reads and writes policies for the admin API. */
export class Policies {
  constructor(
    private readonly dataSource: DataSource,
    private readonly rules: AccessRules,
  ) {}

  /**
   * @param alongside runs in the same transaction, for the audit record
   * @throws {GatewayError} `not_found` without the tenant, `invalid_policy` for too many rules
   */
  async create(fields: PolicyFields, alongside: Alongside): Promise<PolicyEntity> {
    const created = await this.dataSource.transaction(async (manager) => {
      if (fields.tenantId !== null && !(await manager.existsBy(Tenant, { id: fields.tenantId }))) throw new GatewayError('not_found', { publicMessage: 'There is no such tenant.', param: 'tenant' });
      await assertRoom(manager, fields, undefined);
      const id = uuid();
      await manager.insert(PolicyEntity, { id, ...fields });
      const policy = await manager.findOneByOrFail(PolicyEntity, { id });
      await alongside(manager, null, policy);
      await moveAccessRevision(manager);
      return policy;
    });
    await this.rules.changed();
    return created;
  }

  /** @param tenantId whose policies may be seen; undefined for all, the platform's included */
  async find(id: string, tenantId: string | undefined): Promise<PolicyEntity> {
    const policy = isUuid(id) ? await this.dataSource.getRepository(PolicyEntity).findOneBy({ id, ...(tenantId === undefined ? {} : { tenantId }) }) : null;
    if (!policy) throw notFound();
    return policy;
  }

  list(page: Page, tenantId: string | undefined): Promise<PolicyEntity[]> {
    const where: FindOptionsWhere<PolicyEntity> = { ...(tenantId === undefined ? {} : { tenantId }), ...(page.after === undefined ? {} : { id: MoreThan(assertUuid(page.after)) }) };
    return this.dataSource.getRepository(PolicyEntity).find({ where, order: { id: 'ASC' }, take: page.limit + 1 });
  }

  /** The tenant stays: a policy is not moved to another. */
  async replace(id: string, tenantId: string | undefined, fields: Omit<PolicyFields, 'tenantId'>, alongside: Alongside): Promise<PolicyEntity> {
    const replaced = await this.dataSource.transaction(async (manager) => {
      const before = await lockOne(manager, id, tenantId);
      await assertRoom(manager, { tenantId: before.tenantId, rules: fields.rules }, id);
      await manager.update(PolicyEntity, { id }, fields);
      const after = await manager.findOneByOrFail(PolicyEntity, { id });
      await alongside(manager, before, after);
      await moveAccessRevision(manager);
      return after;
    });
    await this.rules.changed();
    return replaced;
  }

  async remove(id: string, tenantId: string | undefined, alongside: Alongside): Promise<void> {
    await this.dataSource.transaction(async (manager) => {
      const before = await lockOne(manager, id, tenantId);
      await manager.delete(PolicyEntity, { id });
      await alongside(manager, before, null);
      await moveAccessRevision(manager);
    });
    await this.rules.changed();
  }
}

/**
 * Checks rules as they came from outside.
 *
 * @throws {GatewayError} `invalid_policy`, naming the path of the fault
 */
export function readRules(value: unknown): Rule[] {
  if (!rulesValidator.Check(value)) {
    const [fault] = rulesValidator.Errors(value);
    const extra = fault?.keyword === 'additionalProperties' ? (fault.params as { additionalProperties?: string[] }).additionalProperties?.[0] : undefined;
    const missing = fault?.keyword === 'required' ? (fault.params as { requiredProperties?: string[] }).requiredProperties?.[0] : undefined;
    const at = `rules${pathOf(fault?.instancePath ?? '')}`;
    if (extra !== undefined) throw invalid(`${at}.${extra}`, 'is not a field of a rule');
    if (missing !== undefined) throw invalid(`${at}.${missing}`, 'is required');
    throw invalid(at, fault?.message ?? 'is invalid');
  }
  const ids = new Set<string>();
  for (const [index, rule] of value.entries()) {
    if (ids.has(rule.id)) throw invalid(`rules[${index}].id`, 'is given twice');
    ids.add(rule.id);
    try {
      compileConditions(rule);
    } catch (error) {
      if (error instanceof ConditionError) throw invalid(`rules[${index}].${error.path}`, error.message);
      throw error;
    }
  }
  return value;
}

export function policyView(policy: PolicyEntity): Record<string, unknown> {
  return {
    id: policy.id, tenant: policy.tenantId, name: policy.name, status: policy.status, rules: policy.rules, created_at: policy.createdAt.toISOString(), updated_at: policy.updatedAt.toISOString(),
  };
}

/** Rules are long, and a record is not: they go into it by their ids and their hash. */
export function recordedPolicy({ id, tenantId, name, status, rules }: PolicyEntity): Record<string, unknown> {
  return { id, tenant: tenantId, name, status, rules: rules.map((rule) => rule.id).slice(0, RULES_NAMED_MAX), rules_sha256: createHash('sha256').update(JSON.stringify(rules)).digest('hex') };
}

async function assertRoom(manager: EntityManager, { tenantId, rules }: Pick<PolicyFields, 'tenantId' | 'rules'>, except: string | undefined): Promise<void> {
  const others = await manager.find(PolicyEntity, { where: { tenantId: tenantId ?? IsNull() } });
  const count = others.filter(({ id }) => id !== except).reduce((sum, policy) => sum + policy.rules.length, rules.length);
  if (count > RULES_IN_ALL_MAX) throw invalid('rules', `would make ${count} rules in all; ${RULES_IN_ALL_MAX} is the most`);
}

async function lockOne(manager: EntityManager, id: string, tenantId: string | undefined): Promise<PolicyEntity> {
  const policy = isUuid(id) ? await manager.findOne(PolicyEntity, { where: { id, ...(tenantId === undefined ? {} : { tenantId }) }, lock: { mode: 'pessimistic_write' } }) : null;
  if (!policy) throw notFound();
  return policy;
}

/** `/0/when/1/op` as people write it: `[0].when[1].op`. */
function pathOf(pointer: string): string {
  return pointer.split('/').slice(1).map((part) => (/^\d+$/.test(part) ? `[${part}]` : `.${part.slice(0, 64)}`)).join('');
}

function invalid(param: string, what: string): GatewayError {
  return new GatewayError('invalid_policy', { publicMessage: `${param}: ${what}.`, param });
}

function notFound(): GatewayError {
  return new GatewayError('not_found', { publicMessage: 'There is no such policy.' });
}
