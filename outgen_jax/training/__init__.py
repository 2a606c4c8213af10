"""Training of networks: compiled updates, epochs, checkpoints.

Each kind of training is a pure update and a loop around it:

                           update       loop              options             also
    classifiers            classifier   classifier_fit    classifier_recipe   objectives, replaced, batch_shares,
                                                                              export, adversarial_examples,
                                                                              boundary_distillation
    GANs                   gan          gan_fit                               gan_game, gan_samples
    fine-tuning (paper D)  finetuning   finetuning_fit    finetuning_recipe   finetuning_checks

They share `updates` (one or several updates a call, and the order of the images), `optimizers` and `checkpoints`.
Import the modules, not this package: `from outgen_jax.training import classifier`.
"""
