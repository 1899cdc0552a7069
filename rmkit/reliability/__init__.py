"""How far each label can be trusted: records + evidence -> weight in [0, 1] with a reason. One method a file.

Every method gives `LabelWeights`; a recipe step drops what weighs nothing and a trainer multiplies losses by the
weights or takes the soft labels. Margins are reward(chosen) - reward(rejected), so that positive agrees with the label.

    peer_review, crm        two models select training pairs for each other (collaborative reward modeling)
    cross_fit, ensemble     the plain rivals: K-fold margins, self-selection, mean / WCO / UWO of several models
    uncertainty, upo        dropout estimator, BALD, agreement filter, selectors, smoothed loss
    cream                   agreement of two rankings -> soft labels
    mpo, pf_ppo, on_policy  reward gap, reliable reward regions, who generated the response
    confident_learning      cleanlab's confident joint
    noise_prior             how many labels are wrong, with an interval

Axes: n pairs, K heads or models, B rows of a batch, D width of a feature, H hidden units, E epochs, T dropout passes.
"""
