import { setTimeout as sleep } from 'node:timers/promises';
import { Controller, HttpCode, Inject, Post, Req } from '@nestjs/common';
import { ApiBearerAuth, ApiTags } from '@nestjs/swagger';
import type { FastifyRequest } from 'fastify';
import { Type, type Static } from 'typebox';
import { Catalogue } from '../catalogue/catalogue.ts';
import { ApiAnswers, ApiErrors, ApiJsonBody } from '../openapi/documented.ts';
import { CLOCK, type Clock } from '../shared/clock.ts';
import { GatewayError } from '../shared/gateway-error.ts';
import { oneOf } from '../shared/one-of.ts';
import { plainText } from '../shared/plain-text.ts';
import { uuid } from '../shared/uuid.ts';
import { ValidatedBody } from '../shared/validated-body.ts';
import { AccessRules } from './access-rules.ts';
import { attributesOf, DATA_CLASSES, type CallSubject, type Explanation } from './decision-point.ts';
import { Policies, readRules } from './policies.ts';
import type { Principal } from './principal.ts';
import { RecordedDecisions } from './recorded-decisions.ts';
import { Roles } from './route-access.ts';
import { assertOwnTenant, visibleTenant } from './scope.ts';

const CLOSED = { additionalProperties: false };
const RECORD_TRIES = 4;
const RECORD_WAIT_MS = 150;
const LAST_DEFAULT = 1_000;
const LAST_MAX = 10_000;
const AttributeValue = Type.Union([Type.String({ maxLength: 1_024 }), Type.Number(), Type.Array(Type.String({ maxLength: 1_024 }), { maxItems: 64 })]);

const ExplainBody = Type.Object({
  decision_id: Type.Optional(plainText(64, 'Of a decision on record; instead of all else')),
  principal: Type.Optional(Type.Object({
    tenant: Type.Optional(plainText(63)), sub: Type.Optional(plainText(512)), roles: Type.Optional(Type.Array(plainText(512), { maxItems: 64 })), client_id: Type.Optional(plainText(512)),
    mtls: Type.Optional(Type.Boolean()), attrs: Type.Optional(Type.Record(plainText(512), AttributeValue)),
  }, CLOSED)),
  request: Type.Optional(Type.Object({
    model: Type.Optional(plainText(256)), stream: Type.Optional(Type.Boolean()), data_class: Type.Optional(oneOf(DATA_CLASSES)), max_tokens: Type.Optional(Type.Number()),
    estimated_cost_usd: Type.Optional(Type.Number()), capabilities: Type.Optional(Type.Array(plainText(64), { maxItems: 64 })), action: Type.Optional(oneOf(['invoke', 'store'])),
  }, CLOSED)),
  env: Type.Optional(Type.Object({ ip: Type.Optional(plainText(64)), time: Type.Optional(plainText(64, 'RFC 3339; now where absent')), weekday: Type.Optional(plainText(16)) }, CLOSED)),
  deployment: Type.Optional(Type.Object({ region: Type.Optional(plainText(64)), accelerator: Type.Optional(plainText(64)), zdr: Type.Optional(Type.Boolean()) }, CLOSED)),
}, CLOSED);
type ExplainBody = Static<typeof ExplainBody>;

const ExplainAnswer = Type.Object({
  allowed: Type.Boolean(), decision_id: Type.String(), revision: Type.String(),
  matched: Type.Array(Type.Object({ policy: Type.String(), rule: Type.String(), effect: oneOf(['allow', 'deny']) })),
  missing: Type.Array(Type.String({ description: 'Attributes that rules ask about and nobody gave' })), reason: Type.Union([Type.String(), Type.Null()]),
  recorded: Type.Optional(Type.Object({ allowed: Type.Boolean(), revision: Type.String(), policy: Type.Union([Type.String(), Type.Null()]), rule: Type.Union([Type.String(), Type.Null()]), at: Type.String(), request_id: Type.String() })),
});

const DryRunBody = Type.Object({
  policy: Type.Object({ id: Type.Optional(plainText(64, 'The policy that it would replace')), tenant: Type.Optional(Type.Union([plainText(63), Type.Null()])), name: Type.Optional(plainText(200)), status: Type.Optional(oneOf(['enforced', 'shadow'])), rules: Type.Unsafe<unknown>({}) }, CLOSED),
  last: Type.Optional(Type.Integer({ minimum: 1, maximum: LAST_MAX, default: LAST_DEFAULT })),
}, CLOSED);
const Outcome = oneOf(['allowed', 'denied']);
const DryRunAnswer = Type.Object({ evaluated: Type.Integer(), flips: Type.Array(Type.Object({ decision_id: Type.String(), from: Outcome, to: Outcome, rule: Type.Union([Type.String(), Type.Null()]) })) });

const explainBody = new ValidatedBody(ExplainBody);
const dryRunBody = new ValidatedBody(DryRunBody);

/** Why a decision falls as it does, and what a policy would change, before it is enforced. Two colons are how the router writes one. */
@ApiTags('admin')
@ApiBearerAuth()
@Controller('admin/v1')
@Roles('tenant-admin', 'auditor')
export class PolicyTrialsController {
  constructor(
    @Inject(AccessRules) private readonly rules: AccessRules,
    @Inject(Policies) private readonly policies: Policies,
    @Inject(RecordedDecisions) private readonly recorded: RecordedDecisions,
    @Inject(Catalogue) private readonly catalogue: Catalogue,
    @Inject(CLOCK) private readonly clock: Clock,
  ) {}

  @Post('policies::explain')
  @HttpCode(200)
  @ApiJsonBody(ExplainBody)
  @ApiAnswers(200, ExplainAnswer, [400, 403, 404])
  async explain(@Req() request: FastifyRequest): Promise<unknown> {
    const body = await explainBody.read(request);
    if (body.decision_id !== undefined) return this.#explainRecorded(body.decision_id, visibleTenant(request.principal!));
    const tenantId = body.principal?.tenant ?? request.principal!.tenantId;
    assertOwnTenant(request.principal!, tenantId);
    const point = this.rules.pointFor(tenantId);
    return this.#answer(uuid(), point.revision, this.#subjects(tenantId, body).map((subject) => point.explain(body.request?.action ?? 'invoke', subject)));
  }

  @Post('policies::dry-run')
  @HttpCode(200)
  @ApiJsonBody(DryRunBody)
  @ApiAnswers(200, DryRunAnswer, [400, 403, 404])
  @ApiErrors(422)
  async dryRun(@Req() request: FastifyRequest): Promise<unknown> {
    const { policy: { id, tenant, name = 'candidate', rules }, last = LAST_DEFAULT } = await dryRunBody.read(request);
    const tenantId = tenant === undefined ? visibleTenant(request.principal!) : (tenant ?? undefined);
    assertOwnTenant(request.principal!, tenantId);
    if (id !== undefined) await this.policies.find(id, visibleTenant(request.principal!));
    return this.recorded.dryRun({ id, name, rules: readRules(rules) }, tenantId, last);
  }

  /** As it was, and as it would fall now. */
  async #explainRecorded(decisionId: string, tenantId: string | undefined): Promise<unknown> {
    let decision = await this.recorded.find(decisionId, tenantId);
    // A refusal is answered before its record is written: whoever asks at once is a little early.
    for (let tries = 0; decision === undefined && tries < RECORD_TRIES; tries += 1) {
      await sleep(RECORD_WAIT_MS);
      decision = await this.recorded.find(decisionId, tenantId);
    }
    if (decision === undefined) throw new GatewayError('not_found', { publicMessage: 'There is no such decision among the latest on record.', param: 'decision_id' });
    const point = this.rules.pointFor(decision.tenantId);
    const explained = decision.subjects.map((subject) => {
      const each = decision.actions.map((action) => point.explain(action, subject));
      return each.find(({ allowed }) => !allowed) ?? each[0]!;
    });
    const now = this.#answer(decisionId, point.revision, explained);
    return { ...now, reason: now['reason'] ?? decision.reason ?? null, recorded: { allowed: decision.allowed, revision: decision.revision, policy: decision.policy ?? null, rule: decision.rule ?? null, at: decision.at, request_id: decision.requestId } };
  }

  /** What any deployment is allowed counts; else all that stood in the way. */
  #answer(decisionId: string, revision: string, explanations: readonly Explanation[]): Record<string, unknown> {
    const allowed = explanations.find((one) => one.allowed);
    const shown = allowed === undefined ? explanations : [allowed];
    const matched = shown.flatMap((one) => one.matched).filter((one, index, all) => all.findIndex(({ policy, rule }) => policy === one.policy && rule === one.rule) === index);
    return {
      allowed: allowed !== undefined, decision_id: decisionId, revision, matched, missing: [...new Set(shown.flatMap(({ missing }) => missing))].toSorted(), reason: shown.find(({ reason }) => reason !== undefined)?.reason ?? null,
    };
  }

  /** One for each deployment that could serve the model; with the deployment that the question names, that alone. */
  #subjects(tenantId: string, { principal = {}, request = {}, env = {}, deployment }: ExplainBody): CallSubject[] {
    const resolved = request.model === undefined ? undefined : this.catalogue.resolve(request.model);
    const places = deployment === undefined ? (resolved?.deployments ?? []).map(({ region, accelerator, zdr, upstreamModel }) => ({ region, accelerator, zdr, upstreamModel })) : [{ ...deployment, upstreamModel: undefined }];
    const timeMs = env.time === undefined ? this.clock.nowMs() : Date.parse(env.time);
    if (Number.isNaN(timeMs)) throw new GatewayError('invalid_request', { publicMessage: 'env.time takes a time such as 2026-11-24T12:00:00Z.', param: 'env.time' });
    const asked: Principal = {
      tenantId, tier: 'standard', dataClass: 'internal', cost: { mode: 'off', targetQuality: 0.5, ceilingTicks: undefined, holds: 'bounded' }, subject: principal.sub ?? '', roles: principal.roles ?? [], attributes: principal.attrs ?? {}, clientId: principal.client_id,
      issuer: '', tokenId: '', expiresAtMs: Number.POSITIVE_INFINITY, mtls: principal.mtls ?? false,
    };
    return (places.length === 0 ? [{ region: undefined, accelerator: undefined, zdr: undefined, upstreamModel: undefined }] : places).map((place) => {
      const attributes: Record<string, unknown> = {
        ...attributesOf(asked, {
          modelNames: [], model: resolved?.name ?? request.model ?? '', stream: request.stream ?? false, dataClass: request.data_class ?? 'internal', maxTokens: request.max_tokens ?? 0,
          estimatedCostUsd: request.estimated_cost_usd ?? 0, capabilities: request.capabilities ?? ['text'], deployment: { region: '', accelerator: '' },
        }, { ip: env.ip ?? '', timeMs }),
        'deployment.region': place.region, 'deployment.accelerator': place.accelerator, 'deployment.zdr': place.zdr,
      };
      // What nobody said is unknown, not empty.
      if (principal.sub === undefined) attributes['principal.sub'] = undefined;
      if (env.ip === undefined) attributes['env.ip'] = undefined;
      if (env.weekday !== undefined) attributes['env.weekday'] = env.weekday;
      if (request.model === undefined) attributes['request.model'] = undefined;
      if (request.max_tokens === undefined) attributes['request.max_tokens'] = undefined;
      if (request.estimated_cost_usd === undefined) attributes['request.estimated_cost_usd'] = undefined;
      return { modelNames: resolved === undefined ? [request.model ?? ''] : [...new Set([resolved.requested, resolved.name, resolved.model.id, place.upstreamModel ?? resolved.model.id])], attributes };
    });
  }
}
