"""What acts: spaces, the shape of a policy, its weights, nets and distributions in numpy and in torch, normalisation.

Importing this package imports none of its modules.
"""
